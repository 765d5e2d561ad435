"""How evenly a set of vectors points everywhere: cosines, cones, alignment and uniformity.

Shapes: N vectors of width D, A axes, C classes.
"""

import math

import torch
from torch import Tensor

from headless.geometry.projection import principal_axes, unit

ROWS = 8192  # whose float64 copies exist at a time
CHUNK = 1024  # rows whose cosines with all rows exist at a time


def anisotropy(x_ND: Tensor) -> Tensor:
    """The mean cosine over all pairs of different rows, a float64 scalar; NaN without a pair.

    Exact: with unit rows u_i the sum over i != j of u_i·u_j is ||sum u||^2 - N, one pass in O(N·D)
    (Ethayarajh 2019 and Godey et al. 2024 estimate it from sampled pairs). 0 for directions drawn
    uniformly, 1 for one direction. Rows of zeros have cosine 0 with every row.
    """
    rows = len(x_ND)
    if rows < 2:
        return x_ND.new_full((), torch.nan, dtype=torch.float64)
    total_D = x_ND.new_zeros(x_ND.shape[1], dtype=torch.float64)
    squares = total_D.new_zeros(())
    for part_ND in x_ND.split(ROWS):  # a vocabulary in float64 would be large, three times over
        unit_ND = unit(part_ND)
        total_D = total_D + unit_ND.sum(dim=0)
        squares = squares + unit_ND.square().sum()  # rows of zeros add nothing to either
    return (total_D.square().sum() - squares) / (rows * (rows - 1))


def cone_axes(x_ND: Tensor, axes: int = 3) -> Tensor:
    """Orthonormal axes [A, D], at most D: the mean of the unit rows, then the directions at right
    angles to it in which the unit rows vary most. The largest entry of each but the first is
    positive: the same rows give the same picture.
    """
    unit_ND = unit(x_ND)
    mean_D = unit(unit_ND.mean(dim=0, keepdim=True))[0]
    across_AD = principal_axes(unit_ND - torch.outer(unit_ND @ mean_D, mean_D), axes - 1).axes_KD
    # The mean itself has no variance left, but rounding may turn the others a little.
    basis_DA = torch.linalg.qr(torch.cat([mean_D[None], across_AD]).T).Q
    wanted_DA = torch.cat([mean_D[None], across_AD]).T
    return (basis_DA * (basis_DA * wanted_DA).sum(dim=0).sign()).T.contiguous()


def angles_to(x_ND: Tensor, direction_D: Tensor) -> Tensor:
    """Degrees [N] between each row and a direction; 90 for rows of zeros."""
    cosine_N = unit(x_ND) @ unit(direction_D[None])[0]
    return cosine_N.clamp(-1.0, 1.0).arccos().rad2deg()


def isotropic_angle_density(degrees: Tensor, width: int) -> Tensor:
    """Density, per degree, of the angle between a fixed direction and one drawn uniformly in D
    dimensions: proportional to sin^(D-2), with mean 90 and standard deviation 57.3/√D."""
    sine = degrees.double().deg2rad().sin().clamp(min=torch.finfo(torch.float64).tiny)
    log_constant = math.lgamma(width / 2) - math.lgamma((width - 1) / 2) - math.log(math.pi) / 2
    return (log_constant + (width - 2) * sine.log()).exp() * (math.pi / 180)


def uniformity(x_ND: Tensor) -> float:
    """log of the mean of exp(-2 |x̂ - ŷ|²) over all pairs of rows (Wang and Isola 2020).

    NaN for one row, 0 for one direction; about -4 for many vectors spread evenly over a wide
    sphere (see `isotropic_uniformity`). O(N²·D): for samples of some thousands.
    """
    unit_ND = unit(x_ND)
    rows = len(unit_ND)
    if rows < 2:
        return math.nan
    # |x̂ - ŷ|² = 2 - 2 x̂·ŷ
    parts = (float((4.0 * (p @ unit_ND.T) - 4.0).exp().sum()) for p in unit_ND.split(CHUNK))
    itself = float((4.0 * unit_ND.square().sum(dim=1) - 4.0).exp().sum())
    return math.log((sum(parts) - itself) / (rows * (rows - 1)))


def isotropic_uniformity(width: int) -> float:
    """What `uniformity` is for directions drawn uniformly in D dimensions: log 0F1(D/2; 4) - 4."""
    from scipy.special import hyp0f1

    return math.log(hyp0f1(width / 2, 4.0)) - 4.0


def class_alignment(x_ND: Tensor, classes_N: Tensor) -> float:
    """The mean of |x̂ - ŷ|² over all pairs of rows of one class (Wang and Isola 2020), exact as
    `anisotropy` is; NaN where no class has two rows."""
    unit_ND = unit(x_ND)
    _, index_N, count_C = classes_N.unique(return_inverse=True, return_counts=True)
    sums_CD = unit_ND.new_zeros(len(count_C), unit_ND.shape[1]).index_add_(0, index_N, unit_ND)
    pairs = int((count_C * (count_C - 1)).sum())
    total = float(sums_CD.square().sum()) - float(unit_ND.square().sum())
    return 2.0 - 2.0 * total / pairs if pairs else math.nan
