"""Singular values of a set of vectors, and how many dimensions they fill.

The ranks are 0 where there is no direction at all (no rows, zeros only, or one row that is
centred) and NaN where a value is not finite.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Eigenvalues of a float64 Gram matrix are exact to about 1e-16 of the largest, singular values
# to its root; what is smaller is noise and would add to the entropy.
NOISE = 1e-7


def singular_spectrum(x_ND: Tensor, center: bool = False) -> Tensor:
    """The singular values of a matrix, descending, float64 [min(N, D)]; `center` subtracts the mean
    row first. NaN everywhere where a value is not finite.

    They are the roots of the eigenvalues of the smaller of XᵀX and XXᵀ in float64: for tall
    matrices several times faster than a singular value decomposition, and exact to about 1e-8 of
    the largest one.
    """
    x_ND = x_ND.double()
    if center:
        x_ND = x_ND - x_ND.mean(dim=0, keepdim=True)
    gram = x_ND.T @ x_ND if x_ND.shape[0] >= x_ND.shape[1] else x_ND @ x_ND.T
    # The decomposition raises on what is not finite; asking first would wait for the device.
    finite = gram.isfinite().all()
    eigenvalues = torch.linalg.eigvalsh(gram.where(finite, 0.0))
    return eigenvalues.clamp(min=0.0).sqrt().flip(0).where(finite, torch.nan)


def effective_rank(x_ND: Tensor, center: bool = True) -> Tensor:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007).

    k for k orthogonal directions of equal strength. With `center=False` it is RankMe (Garrido et
    al. 2023). A float64 scalar in [1, min(N, D)], or 0 or NaN.
    """
    return exp_entropy(_without_noise(singular_spectrum(x_ND, center)))


def stable_rank(x_ND: Tensor, center: bool = False) -> Tensor:
    """The squared Frobenius norm over the squared spectral norm."""
    squares_R = _without_noise(singular_spectrum(x_ND, center)).square()
    return _over(squares_R.sum(), squares_R[:1].sum())


def participation_ratio(x_ND: Tensor, center: bool = True) -> Tensor:
    """`participation` of the covariance's eigenvalues."""
    return participation(_without_noise(singular_spectrum(x_ND, center)).square())


def participation(eigenvalues_R: Tensor) -> Tensor:
    """(sum λ)² / sum λ²: how many of the eigenvalues count; 0 where all are 0."""
    return _over(eigenvalues_R.sum().square(), eigenvalues_R.square().sum())


def exp_entropy(weights_R: Tensor) -> Tensor:
    """exp of the entropy of weights that are made to add up to 1; 0 where all are 0."""
    shares_R = _over(weights_R, weights_R.sum())
    entropy = -torch.special.xlogy(shares_R, shares_R).sum()
    return entropy.exp().where(weights_R.sum() != 0, 0.0)


@dataclass(frozen=True)
class Ranks:
    """How many directions a matrix uses; with R equal ones every rank but `missing` is R."""

    full: int  #: singular values, zero or not
    effective: float  #: exp of the entropy of σ/Σσ (Roy and Vetterli 2007; RankMe)
    entropy: float  #: exp of the entropy of λ/Σλ, λ = σ²
    stable: float  #: Σσ²/σ₁²
    participation: float  #: (Σλ)²/Σλ²
    first_share: float  #: σ₁²/Σσ², of the strongest direction alone
    #: log(full) - log(effective), in nats: the divergence of σ/Σσ from uniform (Godey et al. 2024
    #: follow it for LM heads); 0 for equal directions.
    missing: float


def ranks_of(values_R: Tensor) -> Ranks:
    """From singular values, descending; of zeros alone nothing but the first is known: NaN."""
    values_R, full = _without_noise(values_R), len(values_R)
    if not values_R.any():
        return Ranks(full, *[math.nan] * 6)
    squares_R, effective = values_R.square(), float(exp_entropy(values_R))
    return Ranks(
        full=full,
        effective=effective,
        entropy=float(exp_entropy(squares_R)),
        stable=float(squares_R.sum() / squares_R[0]),
        participation=float(participation(squares_R)),
        first_share=float(squares_R[0] / squares_R.sum()),
        missing=math.log(full) - math.log(effective),
    )


def _without_noise(values_R: Tensor) -> Tensor:
    """Singular values, descending, in float64: 0 in place of what is below `NOISE`."""
    values_R = values_R.double()
    return values_R.masked_fill(values_R <= NOISE * values_R[:1], 0.0)  # NaN stays NaN


def _over(x: Tensor, total: Tensor) -> Tensor:
    return x / total.where(total != 0, 1.0)
