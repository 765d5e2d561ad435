"""How alike two sets of states of the same N tokens are, whatever their axes: CKA, PWCCA, spectra.

Shapes: N states of width D and of width E.
"""

import math

import torch
from torch import Tensor

FLAT = 1e-12  # of the largest eigenvalue of a Gram matrix: what is smaller is rounding


def linear_cka(x_ND: Tensor, y_NE: Tensor) -> float:
    """Centred kernel alignment of linear kernels, debiased: 1 for states that are a rotation and a
    scale apart, 0 in expectation for independent ones.

    After Kornblith et al. (2019) with the unbiased estimator of the Hilbert–Schmidt independence
    criterion (Song et al. 2012; Murphy et al. 2024): of few states of a large width the plain one
    is near 1 for any. NaN for fewer than 4 states, or where all are equal.
    """
    if len(x_ND) < 4:
        return math.nan
    x_ND, y_NE = _centred(x_ND), _centred(y_NE)
    square = _unbiased_hsic(x_ND, x_ND) * _unbiased_hsic(y_NE, y_NE)
    return _unbiased_hsic(x_ND, y_NE) / math.sqrt(square) if square > 0 else math.nan


def _unbiased_hsic(x_ND: Tensor, y_NE: Tensor) -> float:
    """Of the kernels x xᵀ and y yᵀ without their diagonals, in O(N·D·E) and without either."""
    n = len(x_ND)
    own_N, other_N = x_ND.square().sum(dim=1), y_NE.square().sum(dim=1)
    sums_N = x_ND @ x_ND.sum(dim=0) - own_N  # of the rows of each kernel
    other_sums_N = y_NE @ y_NE.sum(dim=0) - other_N
    trace = (x_ND.T @ y_NE).square().sum() - own_N @ other_N
    both = sums_N.sum() * other_sums_N.sum() / ((n - 1) * (n - 2))
    return float(trace + both - 2 / (n - 2) * (sums_N @ other_sums_N)) / (n * (n - 3))


def pwcca(x_ND: Tensor, y_NE: Tensor) -> float:
    """Mean canonical correlation, each weighted by how much of `x` lies along it: 1 where y
    determines x, whatever y's axes and scales.

    Morcos et al. (2018): the weight of a canonical direction h is Σ_d |h · x_d| over the
    dimensions of x. Of finitely many independent states it is well above 0: about √(E/N) and more.
    NaN where either has no direction, or there are not more states than dimensions.
    """
    if len(x_ND) <= x_ND.shape[1] + y_NE.shape[1]:
        return math.nan
    x_ND = _centred(x_ND)
    x_basis_NR, y_basis_NR = _basis(x_ND), _basis(_centred(y_NE))
    if not x_basis_NR.shape[1] or not y_basis_NR.shape[1]:
        return math.nan
    turn_RK, correlation_K, _ = torch.linalg.svd(x_basis_NR.T @ y_basis_NR, full_matrices=False)
    weight_K = (turn_RK.T @ (x_basis_NR.T @ x_ND)).abs().sum(dim=1)
    return float((weight_K * correlation_K.clamp(max=1)).sum() / weight_K.sum())


def spectrum_drift(first_D: Tensor, second_D: Tensor) -> float:
    """Half the sum of |λ/Σλ - μ/Σμ| over ranks, of two covariances' eigenvalues, descending: 0 for
    spectra of one shape whatever their size, below 1; the share of the variance that moved."""
    first_D, second_D = first_D.double(), second_D.double()
    return float((first_D / first_D.sum() - second_D / second_D.sum()).abs().sum()) / 2


def _centred(x_ND: Tensor) -> Tensor:
    x_ND = x_ND.double()
    return x_ND - x_ND.mean(dim=0)


def _basis(x_ND: Tensor) -> Tensor:
    """Orthonormal columns [N, R] that span those of x, but for directions that are noise."""
    values_D, axes_DD = torch.linalg.eigh(x_ND.T @ x_ND)
    kept_D = values_D > FLAT * values_D[-1:].clamp(min=torch.finfo(torch.float64).tiny)
    return x_ND @ (axes_DD[:, kept_D] * values_D[kept_D].rsqrt())
