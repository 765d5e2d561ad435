"""States laid out by UMAP, an optional library (the extra `umap`).

Shapes: N states, D hidden size.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from headless.errors import HeadlessError


def check_umap() -> None:
    """Before hours of work.

    Raises:
        HeadlessError: umap-learn is not installed.
    """
    if importlib.util.find_spec("umap") is None:
        raise HeadlessError("UMAP needs umap-learn: pip install umap-learn")


def umap_layout(x_ND: Tensor, seed: int = 0, neighbours: int = 15) -> np.ndarray:
    """Two coordinates a state by UMAP with cosine distance [N, 2]; the same ones every time.

    Raises:
        HeadlessError: umap-learn is not installed.
    """
    check_umap()
    import warnings

    import umap

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")  # a seed means one thread
        layout = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed)
        return np.asarray(layout.fit_transform(x_ND.float().cpu().numpy()), dtype=np.float64)


def neighbours(flat_N2: np.ndarray, kinds: Sequence[str], key: str, seed: int) -> dict[str, float]:
    """How often the 10 nearest states tell a state's component, and with components shuffled."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    labels = np.array(kinds)
    shuffled = np.random.default_rng(seed).permutation(labels)
    return {
        f"{key}/neighbours{suffix}": float(
            cross_val_score(KNeighborsClassifier(10), flat_N2, these, cv=5).mean()
        )
        for suffix, these in (("", labels), ("/null", shuffled))
    }
