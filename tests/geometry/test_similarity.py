"""CKA and PWCCA against the formulas as they are written, and what they do not see."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headless.geometry import linear_cka, pwcca, spectrum_drift


def draw(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread_D = torch.logspace(0, -2, width, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) * spread_D + 3.0


def turned(width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_DD = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(x_DD).Q


def hsic_by_hand(k_NN: np.ndarray, l_NN: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with the kernels themselves."""
    n, one_N = len(k_NN), np.ones(len(k_NN))
    k_NN, l_NN = k_NN - np.diag(np.diag(k_NN)), l_NN - np.diag(np.diag(l_NN))
    inside = np.trace(k_NN @ l_NN)
    inside += (one_N @ k_NN @ one_N) * (one_N @ l_NN @ one_N) / ((n - 1) * (n - 2))
    inside -= 2 / (n - 2) * (one_N @ k_NN @ l_NN @ one_N)
    return float(inside / (n * (n - 3)))


def test_cka_is_the_formula() -> None:
    x, y = draw(40, 6, 0), draw(40, 6, 0)[:, :4] + draw(40, 4, 1)
    kernels = [(z @ z.T).numpy() for z in (x, y)]  # not centred: the estimator is blind to it
    xx, xy, yy = (hsic_by_hand(kernels[i], kernels[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    assert linear_cka(x, y) == pytest.approx(xy / math.sqrt(xx * yy), rel=1e-9)


def test_pwcca_is_the_formula() -> None:
    """With canonical variates from the inverse roots of both covariances."""
    x, y = draw(200, 5, 2), draw(200, 5, 2)[:, :4] + draw(200, 4, 3)
    x_, y_ = (z.numpy() - z.numpy().mean(axis=0) for z in (x, y))

    def inverse_root(z: np.ndarray) -> np.ndarray:
        values, axes = np.linalg.eigh(z.T @ z)
        return axes @ np.diag(values**-0.5) @ axes.T

    left, correlations, _ = np.linalg.svd(inverse_root(x_) @ x_.T @ y_ @ inverse_root(y_))
    variates = x_ @ inverse_root(x_) @ left[:, : len(correlations)]
    weights = np.abs(variates.T @ x_).sum(axis=1)
    expected = float((weights * correlations).sum() / weights.sum())
    assert pwcca(x, y) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(2, 8),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-10, 10),
)
def test_axes_and_scale_are_not_seen(seed: int, width: int, scale: float, shift: float) -> None:
    x, y = draw(64, width, seed), draw(64, width, seed).square() + draw(64, width, seed + 1)
    moved = scale * (y @ turned(width, seed)) + shift
    assert linear_cka(x, moved) == pytest.approx(linear_cka(x, y), rel=1e-6, abs=1e-9)
    assert linear_cka(x @ turned(width, seed), y) == pytest.approx(linear_cka(x, y), rel=1e-6)
    assert pwcca(x, moved) == pytest.approx(pwcca(x, y), rel=1e-6)
    skewed = y @ (turned(width, seed) + 2 * torch.eye(width, dtype=torch.float64))
    assert pwcca(x, skewed) == pytest.approx(pwcca(x, y), rel=1e-6)  # any map with an inverse
    for alike in (linear_cka, pwcca):
        assert alike(x, scale * (x @ turned(width, seed)) + shift) == pytest.approx(1, abs=1e-6)


def test_independent_states() -> None:
    few = [linear_cka(draw(60, 50, 2 * i), draw(60, 50, 2 * i + 1)) for i in range(40)]
    assert abs(np.mean(few)) < 0.03  # the plain one has 0.2 here and more
    x, y = (torch.randn(2000, 20, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
    assert abs(linear_cka(x, y)) < 0.01
    assert math.sqrt(20 / 2000) / 2 < pwcca(x, y) < 2 * math.sqrt(20 / 2000)


def test_what_has_no_direction() -> None:
    x = draw(50, 3, 0)
    assert math.isnan(linear_cka(x, torch.ones(50, 3)))
    assert math.isnan(pwcca(x, torch.ones(50, 3)))
    assert math.isnan(pwcca(x[:6], x[:6]))  # as many states as dimensions fit anything
    assert math.isnan(linear_cka(x[:3], x[:3]))
    flat = torch.cat([x, x[:, :1]], dim=1)  # a dimension twice
    assert pwcca(flat, x) == pytest.approx(1, abs=1e-6)


def test_drift_is_of_the_shape() -> None:
    first, second = torch.tensor([6.0, 3.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])
    assert spectrum_drift(first, 7 * first) == pytest.approx(0, abs=1e-12)
    assert spectrum_drift(first, second) == pytest.approx((0.1 + 0.2 + 0.1) / 2)
    assert spectrum_drift(first, second) == spectrum_drift(second, first)
