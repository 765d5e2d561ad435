"""How many dimensions a set of vectors fills, in the three usual ways.

Each is 0 where there is no direction at all (no rows, zeros only, or one row that is centred) and
NaN where a value is not finite.
"""

import torch
from torch import Tensor

from headless.geometry.spectrum import singular_spectrum

# Eigenvalues of a float64 Gram matrix are exact to about 1e-16 of the largest, singular values
# to its root; what is smaller is noise and would add to the entropy.
NOISE = 1e-7


def _values(x_ND: Tensor, center: bool) -> Tensor:
    values = singular_spectrum(x_ND, center=center)  # descending
    return values.masked_fill(values <= NOISE * values[:1], 0.0)  # NaN stays NaN


def effective_rank(x_ND: Tensor, center: bool = True) -> Tensor:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007).

    k for k orthogonal directions of equal strength. With `center=False` it is RankMe (Garrido et
    al. 2023).

    Args:
        x_ND: any floating type; computed in float64.
        center: subtract the mean row first.

    Returns:
        A float64 scalar in [1, min(N, D)], or 0 or NaN (see the top of the file).
    """
    values = _values(x_ND, center)
    total = values.sum()
    shares = values / total.where(total != 0, 1.0)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return entropy.exp().where(total != 0, 0.0)


def stable_rank(x_ND: Tensor, center: bool = False) -> Tensor:
    """The squared Frobenius norm over the squared spectral norm."""
    squares = _values(x_ND, center).square()
    largest = squares[:1].sum()
    return squares.sum() / largest.where(largest != 0, 1.0)


def participation_ratio(x_ND: Tensor, center: bool = True) -> Tensor:
    """(sum λ)² / sum λ² of the covariance eigenvalues λ.

    IsoScore (Rudman et al. 2022) is (participation ratio - 1) / (D - 1).
    """
    eigenvalues = _values(x_ND, center).square()
    squares = eigenvalues.square().sum()
    return eigenvalues.sum().square() / squares.where(squares != 0, 1.0)
