"""Exponential growth against linear growth, each planted, with and without noise."""

import numpy as np
import pytest

from headless.geometry import growth

K = np.arange(12.0)


@pytest.mark.parametrize("values", [K + 1, 5 + K, 100 + K, np.sqrt(K + 1), 3 * K + 0.5])
def test_linear_growth_is_not_exponential(values: np.ndarray) -> None:
    found = growth(values)
    assert found is not None
    assert found.exponential is False


@pytest.mark.parametrize("factor", [1.045, 1.1, 1.3])
@pytest.mark.parametrize("depth", [12, 30])
def test_exponential_growth_is(factor: float, depth: int) -> None:
    found = growth(2 * factor ** np.arange(depth))
    assert found is not None
    assert found.exponential
    assert found.factor == pytest.approx(factor)
    assert found.exponential_r2 == pytest.approx(1)


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_turn_one_into_the_other(seed: int) -> None:
    noise = np.exp(0.05 * np.random.default_rng(seed).standard_normal(30))
    k = np.arange(30)
    for values, wrong in ((1.08**k, False), (1 + 0.3 * k, True)):
        found = growth(values * noise)
        assert found is not None
        assert found.exponential is not wrong


def test_a_short_way_cannot_be_told() -> None:
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(12))
    found = growth(1.02**K * noise)  # from 1 to 1.24
    assert found is not None
    assert found.exponential is None
    assert growth(K[:4] + 1) is None
    assert growth(K) is None  # 0 has no logarithm


def test_what_does_not_grow_does_not_grow_exponentially() -> None:
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(12))
    for values in (noise, np.ones(12), 1.3**-K):
        found = growth(values)
        assert found is not None
        assert found.exponential is False


def test_no_unit() -> None:
    a, b = growth(K + 1), growth(1e6 * (K + 1))
    assert a is not None
    assert b is not None
    assert a.factor == pytest.approx(b.factor)
    assert a.linear_r2 == pytest.approx(b.linear_r2, abs=1e-9)
