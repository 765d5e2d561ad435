"""Every rank of a matrix from its singular values, where they are known already."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headless.geometry.effective_rank import NOISE


@dataclass(frozen=True)
class Ranks:
    """How many directions a matrix uses; with R equal ones every rank but `missing` is R.

    Args:
        full: singular values, zero or not.
        numerical: those above `NOISE` of the largest.
        effective: exp of the entropy of σ/Σσ (Roy and Vetterli 2007; RankMe).
        entropy: exp of the entropy of λ/Σλ, λ = σ².
        stable: Σσ²/σ₁².
        participation: (Σλ)²/Σλ².
        first_share: σ₁²/Σσ², of the strongest direction alone.
        missing: log(full) - log(effective), in nats: the divergence of σ/Σσ from uniform
            (Godey et al. 2024 follow it for LM heads); 0 for equal directions.
    """

    full: int
    numerical: int
    effective: float
    entropy: float
    stable: float
    participation: float
    first_share: float
    missing: float


def ranks_of(values_R: Tensor) -> Ranks:
    """From singular values, descending; all but `full` and `numerical` are NaN for a zero matrix.

    Args:
        values_R: of a matrix, centred or not.
    """
    values_R = values_R.double()
    values_R = values_R.where(values_R > NOISE * values_R[:1], 0.0)
    full, numerical = len(values_R), int((values_R > 0).sum())
    if numerical == 0:
        return Ranks(full, 0, *[math.nan] * 6)
    squares_R = values_R.square()
    effective = _exp_entropy(values_R)
    return Ranks(
        full=full,
        numerical=numerical,
        effective=effective,
        entropy=_exp_entropy(squares_R),
        stable=float(squares_R.sum() / squares_R[0]),
        participation=float(squares_R.sum().square() / squares_R.square().sum()),
        first_share=float(squares_R[0] / squares_R.sum()),
        missing=math.log(full) - math.log(effective),
    )


def _exp_entropy(weights_R: Tensor) -> float:
    shares_R = weights_R / weights_R.sum()
    return math.exp(-float(torch.special.xlogy(shares_R, shares_R).sum()))
