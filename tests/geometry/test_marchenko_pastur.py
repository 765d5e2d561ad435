"""The law of noise: against drawn noise, against numerical integrals, and with planted signals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor

from headless.geometry import (
    MarchenkoPastur,
    bulk_std,
    compare_with_noise,
    effective_rank,
    singular_spectrum,
)
from headless.geometry.marchenko_pastur import effective_rank_of_noise

SHAPES = [(300, 300), (900, 300), (200, 600), (4000, 64)]


def noise(shape: tuple[int, int], std: float = 1.0, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return std * torch.randn(shape, generator=draw, dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 500), st.integers(2, 500), st.floats(0.01, 10))
def test_the_density_is_one(rows: int, columns: int, std: float) -> None:
    law = MarchenkoPastur.of((rows, columns), std)
    assert (law.rows, law.columns) == (max(rows, columns), min(rows, columns))
    low, high = law.edges()
    assert law.density(torch.tensor([low * 0.99 - 1e-9, high * 1.01])).tolist() == [0, 0]
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    half = (high - low) / 2  # σ = middle - half·cos(a): smooth at both edges
    density = law.density(low + half * (1 - angle.cos())) * half * angle.sin()
    assert integrate.simpson(density.numpy(), angle.numpy()) == pytest.approx(1, abs=2e-3)
    # the entries' variance is the mean square over the longer dimension
    expected = law.expected().square().mean() / law.rows
    assert float(expected) == pytest.approx(std**2, rel=0.02 + 2 / law.columns)


def test_the_law_in_eigenvalues_is_the_textbook_one() -> None:
    law = MarchenkoPastur(900, 300, 0.7)
    q, lam = 3.0, torch.linspace(0.15, 1.15, 11, dtype=torch.float64)
    low, high = (0.49 * (1 + sign / math.sqrt(q)) ** 2 for sign in (-1, 1))
    textbook = q / (2 * math.pi * 0.49 * lam) * ((high - lam) * (lam - low)).clamp(min=0).sqrt()
    sigma = (900 * lam).sqrt()
    torch.testing.assert_close(law.density(sigma) * 900 / (2 * sigma), textbook)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_no_structure(shape: tuple[int, int]) -> None:
    law = MarchenkoPastur.of(shape, 0.3)
    for seed in range(3):
        values = singular_spectrum(noise(shape, 0.3, seed))
        found = compare_with_noise(values, law)
        assert (found.above, found.below) == (0, 0)
        assert float(values[0]) == pytest.approx(law.edges()[1], rel=0.03)
        assert found.distance < 4 / law.columns + 0.005
        assert bulk_std(values, *shape) == pytest.approx(0.3, rel=0.03)


def test_the_slack_keeps_false_spikes_to_one_in_a_hundred() -> None:
    law = MarchenkoPastur(120, 60, 1.0)
    largest = torch.stack([singular_spectrum(noise((120, 60), seed=s))[0] for s in range(400)])
    assert (largest > law.edges()[1]).sum() > 40  # without slack: many
    assert (largest > law.edges(slack=True)[1]).sum() <= 12


@pytest.mark.parametrize("shape", [(300, 300), (900, 300)])
@pytest.mark.parametrize("planted", [1, 5])
def test_planted_directions_are_counted(shape: tuple[int, int], planted: int) -> None:
    law = MarchenkoPastur.of(shape, 1.0)
    left = torch.linalg.qr(noise((shape[0], planted), seed=7)).Q
    right = torch.linalg.qr(noise((shape[1], planted), seed=8)).Q
    threshold = (shape[0] * shape[1]) ** 0.25  # of Baik, Ben Arous and Péché
    for strength, found in ((3.0, planted), (0.5, 0)):
        values = singular_spectrum(noise(shape) + strength * threshold * left @ right.T)
        assert compare_with_noise(values, law).above == found
    assert bulk_std(values, *shape) == pytest.approx(1.0, rel=0.03)


def test_directions_that_are_missing_are_counted_below() -> None:
    weight = noise((900, 300))
    weight[:, :7] *= 0.05
    law = MarchenkoPastur(900, 300, 1.0)
    assert compare_with_noise(singular_spectrum(weight), law).below == 7


def test_one_huge_direction_moves_the_variance_but_not_the_bulk() -> None:
    weight = noise((600, 200)) + 2.0  # a mean is one direction
    values = singular_spectrum(weight)
    rms = float(weight.square().mean().sqrt())
    pooled = compare_with_noise(values, MarchenkoPastur.of(weight.shape, rms))
    assert pooled.below > 80
    own = bulk_std(values, *weight.shape)
    robust = compare_with_noise(values, MarchenkoPastur.of(weight.shape, own))
    assert own == pytest.approx(1, rel=0.03)
    assert (robust.above, robust.below) == (1, 0)


@pytest.mark.parametrize("shape", [(250, 64), (120, 300), (500, 96), (9, 64)])
def test_the_effective_rank_of_noise(shape: tuple[int, int]) -> None:
    drawn = [float(effective_rank(noise(shape, seed=seed))) for seed in range(3)]
    assert effective_rank_of_noise(*shape) == pytest.approx(sum(drawn) / 3, rel=0.01)
