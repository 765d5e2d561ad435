"""Nearest contexts as a language model (Khandelwal et al. 2020, "Generalization through
Memorization"): p(v) = λ p_kNN(v) + (1 - λ) p_model(v), p_kNN(v) ∝ Σ exp(-d²/τ) over the neighbours
whose next token is v, d² the squared distance of hidden states.

Temperatures are given in units of a store's spread (the mean squared distance of its keys from
their mean), so that one number means the same for models whose hidden states differ in length.

Shapes: Q queries, k neighbours, R temperatures, S = 2 + R statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headless.data.stream import tokens_file
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.store import (
    HiddenStore,
    Progress,
    Window,
    open_for,
    read_windows,
)
from headless.errors import HeadlessError

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # that are tried
WEIGHTS = tuple(n / 20 for n in range(20))  # λ that are tried: 0, 0.05, ..., 0.95


@dataclass(frozen=True)
class KnnScores:
    """Nats a token on the windows with odd numbers, with and without neighbours.

    λ and temperature were chosen on those with even numbers.
    """

    base_nats: float  #: the model alone
    knn_nats: float  #: the mixture
    gain: float  #: base_nats - knn_nats
    gain_error: float  #: its standard error over windows
    weight: float  #: λ
    temperature: float  #: in units of the store's spread
    neighbors: int
    covered: float  #: share of the tokens that followed one of their context's neighbours
    tokens: int
    chosen_on_tokens: int


def knn_lm_scores(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    data: Path | str,
    *,
    neighbors: int = 256,
    split: str = "validation",
    max_tokens: int | None = None,
    weights: Sequence[float] = WEIGHTS,
    temperatures: Sequence[float] = TEMPERATURES,
    progress: Progress = lambda done, total: None,
) -> KnnScores:
    """Whether neighbours help the store's model on the first tokens of another dataset."""
    dataset, stream = open_for(lm, data, split)
    if dataset.manifest.files[tokens_file(split)]["sha256"] == store.manifest.dataset_sha256:
        raise HeadlessError(
            f"the {split} split of {data} is the text of the store, where every token finds "
            "itself: evaluate on another split"
        )
    length = store.manifest.context_length
    total = min(len(stream) - 1, max_tokens or len(stream))
    taus = [t * store.manifest.spread for t in temperatures]
    windows: list[np.ndarray] = []
    for window in read_windows(lm, stream, total, length, scored=True):
        windows.append(_statistics(window, store, index, neighbors, taus))
        progress(sum(part.shape[1] for part in windows), total)
    if len(windows) < 4:
        raise HeadlessError(
            f"{total} tokens are {len(windows)} windows of {length}, too few to choose on one half "
            "and report on the other: evaluate on more text"
        )
    choose_SQ, report_SQ = (np.concatenate(windows[parity::2], axis=1) for parity in (0, 1))
    _, weight, best = min(
        (float(mixture_nats(choose_SQ[0], knn_Q, weight).mean()), weight, t)
        for t, knn_Q in enumerate(choose_SQ[2:])
        for weight in weights
    )
    base_Q, knn_Q = -report_SQ[0], mixture_nats(report_SQ[0], report_SQ[2 + best], weight)
    gain_Q = base_Q - knn_Q
    ends = np.cumsum([part.shape[1] for part in windows[1::2]])[:-1]
    sums = np.array([part.sum() for part in np.split(gain_Q - gain_Q.mean(), ends)])
    n = len(sums)  # tokens are alike within a window
    return KnnScores(
        base_nats=float(base_Q.mean()),
        knn_nats=float(knn_Q.mean()),
        gain=float(gain_Q.mean()),
        gain_error=float(np.sqrt(np.square(sums).sum() * n / (n - 1)) / len(gain_Q)),
        weight=weight,
        temperature=temperatures[best],
        neighbors=min(neighbors, len(store.values_N)),
        covered=float(report_SQ[1].mean()),
        tokens=report_SQ.shape[1],
        chosen_on_tokens=choose_SQ.shape[1],
    )


def mixture_nats(base_log_Q: np.ndarray, knn_Q: np.ndarray, weight: float) -> np.ndarray:
    """-log(λ p_kNN + (1 - λ) p_model) of each target, whose log p_model is given: float64 [Q]."""
    return -np.log(weight * knn_Q + (1.0 - weight) * np.exp(base_log_Q.astype(np.float64)))


def _statistics(
    window: Window, store: HiddenStore, index: VectorIndex, neighbors: int, taus: Sequence[float]
) -> np.ndarray:
    """Rows [S, Q]: log p_model, whether a neighbour has the target, p_kNN at each temperature."""
    assert window.log_probability_n is not None
    distances_Qk, ids_Qk = index.search(window.hidden_nD.numpy(), neighbors)
    values_Qk = np.where(ids_Qk < 0, -1, store.values_N[ids_Qk])
    right_Qk = values_Qk == window.targets_n.numpy()[:, None]
    knn = [(neighbor_weights(distances_Qk, tau) * right_Qk).sum(axis=1) for tau in taus]
    base_Q = window.log_probability_n.double().numpy()
    return np.stack([base_Q, right_Qk.any(axis=1), *knn])


def neighbor_weights(distances_Qk: np.ndarray, tau: float) -> np.ndarray:
    """softmax(-d²/τ) over the neighbours, float64 [Q, k]; 0 for one that is missing (+inf)."""
    distances_Qk = distances_Qk.astype(np.float64)
    nearest_Q1 = distances_Qk.min(axis=1, keepdims=True)
    nearest_Q1[~np.isfinite(nearest_Q1)] = 0.0  # all are missing
    weights_Qk = np.exp((nearest_Q1 - distances_Qk) / tau)
    return weights_Qk / np.maximum(weights_Qk.sum(axis=1, keepdims=True), 1e-300)
