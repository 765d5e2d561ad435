"""A helix is found, a random walk and noise are not."""

import math

import pytest
import torch
from torch import Tensor

from headless.geometry import helix, random_walks

T, D = 256, 40


def a_helix(turns: float, noise: float = 0.05, axis: float = 3.0, ratio: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    t_T = torch.linspace(0, 1, T).double()
    angle_T = 2 * math.pi * turns * t_T
    path = torch.stack([axis * t_T, angle_T.cos(), angle_T.sin() / ratio**0.5], dim=1)
    basis = torch.linalg.qr(torch.randn(D, 3, generator=generator).double()).Q
    return path @ basis.T + noise * torch.randn(T, D, generator=generator).double()


@pytest.mark.parametrize("turns", [2.0, 3.5, 9.0])
@pytest.mark.parametrize("axis", [1.0, 5.0])
def test_a_helix_is_found(turns: float, axis: float) -> None:
    found = helix(a_helix(turns, axis=axis))
    assert found.has_circle
    assert found.turns == pytest.approx(turns, abs=0.1)
    assert found.frequencies == pytest.approx((turns, turns), abs=0.2)
    assert found.score > 0.7
    if axis > 1:
        assert found.is_helix
        assert found.axis_rho > 0.9


def test_half_a_helix_is_none() -> None:
    assert not helix(a_helix(0.5)).has_circle
    assert not helix(a_helix(5.0, ratio=6.0)).has_circle  # an ellipse
    assert not helix(a_helix(5.0, axis=0.0)).is_helix  # a circle goes nowhere
    assert helix(a_helix(5.0, axis=0.0)).has_circle


def test_random_walks_are_none() -> None:
    """A naive test passes them: steady first component, nearly linear phase."""
    passed = 0
    for width in (3, 20, 200):
        generator = torch.Generator().manual_seed(width)
        for _ in range(12):
            walk = torch.randn(128, width, generator=generator).cumsum(dim=0)
            passed += helix(walk).is_helix
    assert passed <= 1


def test_noise_is_none() -> None:
    found = helix(torch.randn(T, 64))
    assert not found.is_helix
    assert found.score < 0.1


def test_a_helix_is_above_its_walks() -> None:
    path = a_helix(3.0)
    walks = random_walks(path, 9)
    assert helix(path).score > max(helix(walk).score for walk in walks)
    assert all(len(walk) == T for walk in walks)
    assert torch.equal(walks[0], random_walks(path, 1)[0])


def test_paths_without_length() -> None:
    assert not helix(torch.ones(20, 5)).is_helix
    line = torch.arange(20.0)[:, None] * torch.ones(5)
    found = helix(line)
    assert found.axis_share == pytest.approx(1)
    assert not found.is_helix
    with pytest.raises(ValueError, match="at least 8"):
        helix(torch.randn(5, 5))


def test_turning_and_scaling_change_nothing() -> None:
    path = a_helix(3.0)
    turned = 7 * path @ torch.linalg.qr(torch.randn(D, D).double()).Q + 100
    assert helix(turned).score == pytest.approx(helix(path).score, abs=1e-6)
