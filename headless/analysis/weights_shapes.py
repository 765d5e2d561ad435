"""The shape of every matrix's entries: moments, tails, fitted distributions."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.states.families import block_matrices
from headless.analysis.weights_measure import SEED, matching
from headless.geometry import best_fit, fit_distributions, gaussian_distance, moments
from headless.geometry.gaussianity import Fit, Moments

SAMPLE = 32_768  # entries that distributions are fitted to; moments take all
EDGES = np.linspace(-8, 8, 97)  # of the histograms, in standard deviations
QUANTILES = 201


@dataclass(frozen=True)
class Values:
    """The shape of one matrix's entries.

    Args:
        block: from 0.
        role: of the matrix.
        moments: of all entries.
        distance: Kolmogorov and Smirnov's to a Gaussian, of a sample.
        fits: the four distributions, of the sample, standardised by the moments; with the rest
            that takes a sample empty where no fits were asked for.
        best: the likeliest.
        density_K: histogram of all standardised entries, over `EDGES`; outer bins hold the rest.
        quantiles_Q: of the standardised sample, at the same shares as a Gaussian's are drawn.
        start: moments before training, where that is known.
    """

    block: int
    role: str
    moments: Moments
    distance: float
    fits: dict[str, Fit]
    best: str
    density_K: np.ndarray
    quantiles_Q: np.ndarray
    start: Moments | None


def values_of(
    backbone: nn.Module, initial: nn.Module | None = None, *, fits: bool = True
) -> list[Values]:
    """The shape of every matrix's entries.

    Args:
        backbone: of a family that the laboratory knows.
        initial: the same backbone before training.
        fits: draw a sample of each and fit distributions to it.

    Raises:
        HeadlessError: another family, or `initial` has other matrices.
    """
    matrices = block_matrices(backbone)
    starts = matching(matrices, initial) if initial is not None else None
    return [
        _values(m.block, m.role, m.weight, moments(starts[i].weight) if starts else None, fits)
        for i, m in enumerate(matrices)
    ]


def _values(block: int, role: str, weight: Tensor, start: Moments | None, fitted: bool) -> Values:
    found = moments(weight)
    scale = found.std if found.std > 0 else 1.0
    z = (weight.double().flatten() - found.mean) / scale
    inside = z.clamp(EDGES[0] + 1e-9, EDGES[-1] - 1e-9).float()
    count = torch.histc(inside, bins=len(EDGES) - 1, min=EDGES[0], max=EDGES[-1])
    density = count.double().cpu().numpy() / z.numel() / (EDGES[1] - EDGES[0])
    if not fitted:
        return Values(block, role, found, math.nan, {}, "", density, np.empty(0), start)
    sample = sample_of(z)
    fits = fit_distributions(sample)
    return Values(
        block=block,
        role=role,
        moments=found,
        distance=gaussian_distance(sample) if found.std > 0 else math.nan,
        fits=fits,
        best=best_fit(fits, len(sample)),
        density_K=density,
        quantiles_Q=np.quantile(sample.cpu().numpy(), gaussian_shares()),
        start=start,
    )


def sample_of(values: Tensor, size: int = SAMPLE) -> Tensor:
    """At most `size` of the values, drawn at random with a fixed seed."""
    values = values.flatten()
    if len(values) <= size:
        return values
    draw = torch.Generator(device=values.device).manual_seed(SEED)
    return values[torch.randint(len(values), (size,), generator=draw, device=values.device)]


def gaussian_shares() -> np.ndarray:
    """Shares of a Gaussian at even steps from -4 to 4 standard deviations."""
    z = torch.linspace(-4, 4, QUANTILES, dtype=torch.float64)
    return torch.special.ndtr(z).numpy()
