"""How evenly a set of vectors points everywhere, and how evenly it fills its space.

Shapes: N vectors of width D, C classes.
"""

import math

import torch
from torch import Tensor

from headless.geometry.projection import unit
from headless.geometry.spectrum import participation

ROWS = 8192  # whose float64 copies exist at a time
CHUNK = 1024  # rows whose cosines with all rows exist at a time


def anisotropy(x_ND: Tensor) -> Tensor:
    """The mean cosine over all pairs of different rows, a float64 scalar; NaN without a pair.

    Exact: with unit rows u_i the sum over i != j of u_i·u_j is ||sum u||^2 - N, one pass in O(N·D)
    (Ethayarajh 2019 and Godey et al. 2024 estimate it from sampled pairs). 0 for directions drawn
    uniformly, 1 for one direction. Rows of zeros have cosine 0 with every row.
    """
    num_rows = x_ND.shape[0]
    if num_rows < 2:
        return x_ND.new_full((), torch.nan, dtype=torch.float64)
    total_D = x_ND.new_zeros(x_ND.shape[1], dtype=torch.float64)
    alive = total_D.new_zeros(())
    for part_ND in x_ND.split(ROWS):  # a vocabulary in float64 would be large, three times over
        part_ND = part_ND.double()
        norm_N1 = torch.linalg.vector_norm(part_ND, dim=-1, keepdim=True)
        total_D = total_D + (part_ND / norm_N1.where(norm_N1 > 0, 1.0)).sum(dim=0)
        alive = alive + (norm_N1 > 0).sum()
    # Rows of zeros add nothing to either term.
    pairs = total_D.square().sum() - alive
    return pairs / (num_rows * (num_rows - 1))


def isoscore(eigenvalues_D: Tensor) -> float:
    """IsoScore (Rudman et al. 2022) from the eigenvalues of the covariance.

    (participation - 1) / (D - 1): 0 where the vectors vary along one line, 1 where they vary alike
    everywhere. It does not see a common mean. NaN in one dimension and where nothing varies.
    """
    directions = float(participation(eigenvalues_D.double().clamp(min=0.0)))
    if len(eigenvalues_D) < 2 or not directions:
        return math.nan
    return (directions - 1.0) / (len(eigenvalues_D) - 1)


def partition_isotropy(x_ND: Tensor) -> float:
    """I(W) = min Z(c) / max Z(c), Z(c) = sum_i exp(x_i·c) over the eigenvectors ±c of XᵀX.

    Mu and Viswanath 2018, after Arora et al. 2016. 1 for a set without a preferred direction; in
    float64 through logarithms, since exp of a large state overflows.
    """
    x_ND = x_ND.double()
    vectors_DD = torch.linalg.eigh(x_ND.T @ x_ND).eigenvectors
    scores_ND = x_ND @ vectors_DD
    logs = torch.cat([scores_ND.logsumexp(dim=0), (-scores_ND).logsumexp(dim=0)])
    return float((logs.min() - logs.max()).exp())


def uniformity(x_ND: Tensor) -> float:
    """log of the mean of exp(-2 |x̂ - ŷ|²) over all pairs of rows (Wang and Isola 2020).

    NaN for one row, 0 for one direction; about -4 for many vectors spread evenly over a wide
    sphere (see `isotropic_uniformity`). O(N²·D): for samples of some thousands.
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
    """The mean of |x̂ - ŷ|² over all pairs of rows of one class (Wang and Isola 2020), and how many
    pairs: NaN and 0 where no class has two rows. Exact, as `anisotropy` is.
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
