"""What vectors of tokens have to do with the tokens' counts: the numbers.

Shapes: V vocabulary, D hidden size, N states.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from headless.geometry import anisotropy, log_fit, principal_axes, ranks_of, singular_spectrum, unit

GROUPS = 10
ZIPF = (10, 2000)  # ranks of the fit


def zipf(counts_V: np.ndarray) -> tuple[float, float]:
    """Slope and R² of log count on log rank, ranks 10 to 2000; 1 to all of small vocabularies."""
    sorted_V = np.sort(counts_V[counts_V > 0])[::-1].astype(np.float64)
    low, high = ZIPF if len(sorted_V) >= 4 * ZIPF[0] else (1, len(sorted_V))
    slope, _, r_squared = log_fit(sorted_V, low, high)
    return slope, r_squared


def groups_of(counts_V: np.ndarray, groups: int = GROUPS) -> list[np.ndarray]:
    """Token numbers in groups of equal size from rare to frequent; unseen ones first, apart.

    Tokens of one count are in random order: tokenizers number theirs by frequency in another text,
    so that among tokens that occur once the order of their numbers would be one of frequency.
    """
    seen = np.random.default_rng(0).permutation(np.flatnonzero(counts_V > 0))
    order = seen[np.argsort(counts_V[seen], kind="stable")]
    return [np.flatnonzero(counts_V == 0), *np.array_split(order, groups)]


def measures(table_VD: Tensor, hidden_ND: Tensor | None) -> dict[str, np.ndarray]:
    """Of each token [V]: norm, cosine with the mean vector, place on the first component, and
    product and cosine with the mean state."""
    mean_D = table_VD.mean(dim=0)
    first = principal_axes(table_VD, 1)
    pc1_V = first(table_VD)[:, 0]
    # An axis has no sign: towards the mean vector is positive.
    if float(first.axes_KD[0] @ mean_D) < 0:
        pc1_V = -pc1_V
    values = {
        "norm": table_VD.norm(dim=1),
        "cos_mean": unit(table_VD) @ torch.nn.functional.normalize(mean_D, dim=0),
        "pc1": pc1_V,
    }
    if hidden_ND is not None:
        state_D = hidden_ND.detach().double().cpu().mean(dim=0)
        values["dot_state"] = table_VD @ state_D
        values["cos_state"] = unit(table_VD) @ torch.nn.functional.normalize(state_D, dim=0)
    return {name: value.numpy() for name, value in values.items()}


def correlations(
    name: str, values: Mapping[str, np.ndarray], counts: np.ndarray, draw: np.random.Generator
) -> dict[str, float]:
    """Rank correlations of each measure with counts, and the largest of 19 with shuffled ones."""
    from scipy.stats import spearmanr

    seen = counts > 0
    found = {
        f"frequency/{name}/rho_{key}": float(spearmanr(counts[seen], value[seen]).statistic)
        for key, value in values.items()
    }
    shuffled = [
        abs(float(spearmanr(draw.permutation(counts[seen]), values["cos_mean"][seen]).statistic))
        for _ in range(19)
    ]
    return found | {f"frequency/{name}/rho_null": max(shuffled)}


def spectrum_of(rows_ND: Tensor) -> np.ndarray:
    """Singular values of centred rows over the root of their number; none for fewer than two."""
    if len(rows_ND) < 2:
        return np.zeros(0)
    return (singular_spectrum(rows_ND, center=True) / len(rows_ND) ** 0.5).numpy()


def random_group(rows: int, size: int, seed: int) -> np.ndarray:
    """Token numbers drawn without repetition: the null model of a group."""
    return np.random.default_rng(seed).permutation(rows)[:size]


def of_groups(
    name: str,
    table_VD: Tensor,
    values: Mapping[str, np.ndarray],
    parts: list[np.ndarray],
    spectra: list[np.ndarray],
) -> dict[str, float]:
    """Means, anisotropy and effective rank of each group; the last one is the random one."""
    found = {}
    labels = [*(f"{index:02d}" for index in range(len(parts) - 1)), "random"]
    for label, part, spectrum in zip(labels, parts, spectra, strict=True):
        if len(part) < 2:
            continue
        found[f"frequency/{name}/cos_mean_{label}"] = float(values["cos_mean"][part].mean())
        found[f"frequency/{name}/norm_{label}"] = float(values["norm"][part].mean())
        found[f"frequency/{name}/anisotropy_{label}"] = float(anisotropy(table_VD[part]))
        rank = ranks_of(torch.from_numpy(spectrum)).effective
        found[f"frequency/{name}/effective_rank_{label}"] = rank
    return found


def gao(
    name: str, table_VD: Tensor, parts: list[np.ndarray], hidden_ND: Tensor
) -> dict[str, float]:
    """Where the mean vectors of rare and frequent tokens stand to the hidden states."""
    hidden_ND = hidden_ND.detach().double().cpu()
    state_D, mean_D = hidden_ND.mean(dim=0), table_VD.mean(dim=0)
    rare_D = table_VD[parts[1]].mean(dim=0)
    frequent_D = table_VD[parts[-1]].mean(dim=0)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    found = {
        "rare_against_states": float((hidden_ND @ rare_D < 0).double().mean()),
        "frequent_against_states": float((hidden_ND @ frequent_D < 0).double().mean()),
        "rare_cos_mean_state": cosine(rare_D, state_D),
        "mean_cos_mean_state": cosine(mean_D, state_D),
        "negative_tokens": float((table_VD @ state_D < 0).double().mean()),
    }
    if len(parts[0]):
        unseen_D = table_VD[parts[0]].mean(dim=0)
        found["unseen_against_states"] = float((hidden_ND @ unseen_D < 0).double().mean())
    return {f"frequency/{name}/{key}": value for key, value in found.items()}
