"""Alignment and uniformity of unit vectors (Wang and Isola 2020)."""

import math

from torch import Tensor

from headless.geometry.projection import unit

CHUNK = 1024  # rows whose cosines with all rows exist at a time


def uniformity(x_ND: Tensor) -> float:
    """log of the mean of exp(-2 |x̂ - ŷ|²) over all pairs of different rows; NaN for one row.

    0 for one direction; about -4 for many vectors spread evenly over a wide sphere (see
    `isotropic_uniformity`). O(N²·D): for samples of some thousands.
    """
    unit_ND = unit(x_ND)
    rows = len(unit_ND)
    if rows < 2:
        return math.nan
    total = 0.0
    for part in unit_ND.split(CHUNK):
        # |x̂ - ŷ|² = 2 - 2 x̂·ŷ
        total += float((4.0 * (part @ unit_ND.T) - 4.0).exp().sum())
    itself = float((4.0 * unit_ND.square().sum(dim=1) - 4.0).exp().sum())
    return math.log((total - itself) / (rows * (rows - 1)))


def isotropic_uniformity(width: int) -> float:
    """What `uniformity` is for directions drawn uniformly in D dimensions: log 0F1(D/2; 4) - 4."""
    from scipy.special import hyp0f1

    return math.log(hyp0f1(width / 2, 4.0)) - 4.0


def class_alignment(x_ND: Tensor, classes_N: Tensor) -> tuple[float, int]:
    """The mean of |x̂ - ŷ|² over all pairs of different rows of one class, and how many pairs.

    Exact and without forming pairs: in a class of n unit rows the cosines add up to
    |sum x̂|² - n. NaN and 0 where no class has two rows.
    """
    unit_ND = unit(x_ND)
    _, index_N, count_C = classes_N.unique(return_inverse=True, return_counts=True)
    sums_CD = unit_ND.new_zeros(len(count_C), unit_ND.shape[1]).index_add_(0, index_N, unit_ND)
    squares = float(unit_ND.square().sum())
    pairs = int((count_C * (count_C - 1)).sum())
    if not pairs:
        return math.nan, 0
    cosine = (float(sums_CD.square().sum()) - squares) / pairs
    return 2.0 - 2.0 * cosine, pairs // 2
