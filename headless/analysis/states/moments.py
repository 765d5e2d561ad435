"""Numbers from accumulated sums: exact, without a second pass.

Every function takes `Statistics` and a group of positions (REST by default, FIRST for position 0).
"""

import numpy as np
import torch
from torch import Tensor

from headless.analysis.states.accumulators import REST, Statistics, histogram_edges


def mean(s: Statistics, group: int = REST) -> Tensor:
    """Per dimension [D]."""
    return s.powers_G4D[group, 0] / s.count_G[group]


def variance(s: Statistics, group: int = REST) -> Tensor:
    """Per dimension [D], divided by n."""
    raw = s.powers_G4D[group] / s.count_G[group]
    return raw[1] - raw[0].square()


def _excess_kurtosis(m1: Tensor, m2: Tensor, m3: Tensor, m4: Tensor) -> Tensor:
    """From raw moments: fourth central moment over the squared variance, less 3."""
    central = m4 - 4 * m1 * m3 + 6 * m1.square() * m2 - 3 * m1.pow(4)
    return central / (m2 - m1.square()).square() - 3


def excess_kurtosis(s: Statistics, group: int = REST) -> Tensor:
    """Per dimension [D]."""
    return _excess_kurtosis(*(s.powers_G4D[group] / s.count_G[group]))


def pooled_excess_kurtosis(s: Statistics, group: int = REST) -> float:
    """Of all entries together, which mixes dimensions of different scales."""
    return float(_excess_kurtosis(*(s.powers_G4D[group].mean(dim=1) / s.count_G[group])))


def rms(s: Statistics, group: int = REST) -> Tensor:
    """Root mean square per dimension [D]."""
    return (s.powers_G4D[group, 1] / s.count_G[group]).sqrt()


def mean_norm(s: Statistics, group: int = REST) -> float:
    """Mean Euclidean norm of the states."""
    return float(s.norm_G[group] / s.count_G[group])


def mean_cosine(s: Statistics, group: int = REST) -> float:
    """Anisotropy: the mean cosine over all pairs of different states."""
    return float(cosine_shares(s, group).sum())


def cosine_shares(s: Statistics, group: int = REST) -> Tensor:
    """What each dimension adds to `mean_cosine` [D] (Timkey and van Schijndel 2021)."""
    n = s.count_G[group]
    return (s.unit_GD[group].square() - s.unit_squares_GD[group]) / (n * (n - 1))


def covariance(s: Statistics) -> Tensor:
    """[D, D], divided by n, of all states but first positions'."""
    if s.outer_DD is None:
        raise ValueError("accumulated without covariance=True")
    mean_D = mean(s)
    return s.outer_DD / s.count_G[REST] - torch.outer(mean_D, mean_D)


def eigenvalues(s: Statistics) -> np.ndarray:
    """Of the covariance, descending, none below 0."""
    return torch.linalg.eigvalsh(covariance(s)).clamp(min=0).flip(0).cpu().numpy()


def variance_shares(s: Statistics) -> dict[str, float]:
    """How much of the states' variance position and context explain (Song and Zhong 2023).

    h = mean + position + context + rest. Shares of the total variance over positions but the
    first. Means over finitely many states vary by themselves; that part is taken out (a share
    that is 0 may come out a little below). For sequences of one length.
    """
    assert s.position_sum_TD is not None
    total = float(variance(s).sum())
    count_T = s.position_count_T[1:]
    seen = count_T > 0
    mean_TD = s.position_sum_TD[1:][seen] / count_T[seen, None]
    weight_T = count_T[seen] / count_T.sum()
    positions, sequences = int(seen.sum()), float(s.sequences)
    by_position = float(((mean_TD - mean(s)).square().sum(dim=1) * weight_T).sum()) / total
    square = s.sequence_square / sequences - (s.sequence_sum_D / sequences).square().sum()
    by_sequence = float(square) / total
    # In expectation, with p + c + r = 1:  by_position = p + (c + r) a,  by_sequence = (c + r t) b
    a = (positions - 1) / positions / sequences
    b, t = (sequences - 1) / sequences, sequences / float(s.count_G[REST])
    position = (by_position - a) / (1 - a)
    context = (by_sequence / b - (1 - position) * t) / (1 - t)
    return {"position": position, "context": context, "rest": 1 - position - context}


# Of counts between `histogram_edges`, inside whose bins values are taken to be spread evenly.


def shares_below(histogram: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The share of values below each x; those exactly at x may count on either side."""
    below = np.concatenate([[0.0], np.cumsum(histogram)])
    return np.interp(x, histogram_edges(), below) / below[-1]


def density_of(s: Statistics, centre: float, scale: float, edges: np.ndarray) -> np.ndarray:
    """Of all entries, less `centre` and over `scale`, between `edges`."""
    below = shares_below(s.histogram.numpy(), centre + scale * edges)
    return np.diff(below) / np.diff(edges)
