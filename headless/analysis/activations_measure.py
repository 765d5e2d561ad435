"""Three views of the entries of states, standardised: pooled, by dimension, random directions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point

DIRECTIONS = 64  # random directions whose projections are looked at
FITTED = 20_000  # values to which distributions are fitted
QUANTILES = np.concatenate([np.geomspace(1e-4, 0.5, 60), 1 - np.geomspace(0.5, 1e-4, 60)[1:]])


def views_of(s: Statistics, seed: int) -> dict[str, Tensor]:
    """Flat standardised values of the three views, from the reservoir."""
    x_KD = s.sample_KD.double()
    mean_D, std_D = moments.mean(s), moments.variance(s).clamp(min=0).sqrt()
    alive_D = std_D > 0
    scaled_KD = ((x_KD - mean_D) / std_D.where(alive_D, 1.0))[:, alive_D]
    generator = torch.Generator().manual_seed(seed)
    directions_DR = torch.randn(
        scaled_KD.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64
    )
    projected_KR = scaled_KD @ directions_DR
    projected_KR = (projected_KR - projected_KR.mean(dim=0)) / projected_KR.std(dim=0)
    return {
        "pooled": ((x_KD - x_KD.mean()) / x_KD.std()).flatten(),
        "dimensions": scaled_KD.flatten(),
        "directions": projected_KR.flatten(),
    }


def some(values_N: Tensor, seed: int) -> Tensor:
    """At most `FITTED` of the values, drawn with repetition."""
    if len(values_N) <= FITTED:
        return values_N
    generator = torch.Generator().manual_seed(seed)
    return values_N[torch.randint(len(values_N), (FITTED,), generator=generator)]


def course(
    scalars: Mapping[str, float], points: Sequence[Point], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of some points and their scalars of a name."""
    found = [(p.block, scalars[f"activations/{p.name}/{name}"]) for p in points]
    return np.array([b for b, _ in found]), np.array([v for _, v in found])
