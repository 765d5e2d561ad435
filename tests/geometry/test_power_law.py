"""Exponents of spectra against planted ones, SciPy and a slow second implementation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from headless.geometry import log_fit, rank_law, tail_law
from headless.geometry.power_law import MIN_TAIL


def pareto(alpha: float, n: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=draw, dtype=torch.float64).pow(-1 / (alpha - 1))


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 2.5), st.floats(1e-3, 1e3), st.integers(12, 400))
def test_a_rank_law_gives_its_exponent(b: float, scale: float, n: int) -> None:
    law = rank_law(scale * torch.arange(1, n + 1).double().pow(-b))
    assert law.exponent == pytest.approx(b, rel=1e-9)
    assert math.exp(law.intercept) == pytest.approx(scale, rel=1e-9)
    assert law.r_squared == pytest.approx(1.0)
    assert law.knee == n + 1  # nothing falls off


def test_the_knee_is_where_the_fall_off_begins() -> None:
    k = torch.arange(1, 201).double()
    values = k.pow(-0.5)
    values[180:] *= 0.4  # below half of the line
    assert rank_law(values).knee == 181
    values[180:] = 0.0
    law = rank_law(values)
    assert law.exponent == pytest.approx(0.5)
    assert law.knee == 181


def test_the_fit_is_least_squares() -> None:
    values = torch.randn(300, dtype=torch.float64).abs().sort(descending=True).values
    law = rank_law(values, low=0.1, high=0.5)
    assert law.fitted == (30, 150)
    x, y = torch.arange(30, 151).double().log().numpy(), values[29:150].log().numpy()
    reference = stats.linregress(x, y)
    assert law.exponent == pytest.approx(-reference.slope)
    assert law.intercept == pytest.approx(reference.intercept)
    assert law.r_squared == pytest.approx(reference.rvalue**2)


def test_a_log_fit_begins_at_the_rank_that_is_named_and_skips_zeros() -> None:
    values = 5 * torch.arange(1, 200).double().pow(-0.7)
    values[:2], values[50] = 1e6, 0.0
    assert log_fit(values, 3, 100) == pytest.approx((-0.7, math.log(5), 1.0))
    assert log_fit(values.flip(0).numpy()[::-1], 3, 100) == log_fit(values, 3, 100)
    assert math.isnan(log_fit(values, 50, 52)[0])


def test_too_few_ranks_have_no_exponent() -> None:
    assert math.isnan(rank_law(torch.ones(3)).exponent)
    assert math.isnan(rank_law(torch.zeros(50)).exponent)


@pytest.mark.parametrize("alpha", [1.5, 2.5, 3.5, 5.0])
def test_a_pareto_tail_gives_its_exponent(alpha: float) -> None:
    values = pareto(alpha, 2000)
    law = tail_law(values)
    assert abs(law.alpha - alpha) < 3 * law.standard_error
    tail = values[values >= law.x_min * (1 - 1e-12)]
    assert len(tail) == law.count
    shape = stats.pareto.fit(tail.numpy(), floc=0, fscale=law.x_min)[0]
    assert law.alpha - 1 == pytest.approx(shape)
    fitted = stats.pareto(shape, scale=law.x_min).cdf
    assert law.distance == pytest.approx(stats.kstest(tail.numpy(), fitted).statistic)
    assert law.exponential > 0


def test_the_tail_begins_where_the_law_does() -> None:
    tail, body = 10 * pareto(2.8, 1500), 10 * torch.rand(1500, dtype=torch.float64)
    law = tail_law(torch.cat([body, tail]))
    assert law.x_min == pytest.approx(10, rel=0.25)
    assert law.alpha == pytest.approx(2.8, abs=3 * law.standard_error)


def slow_scan(values: Tensor) -> tuple[float, float, float]:
    """Clauset, Shalizi and Newman's scan, one threshold after the other: α, x_min, distance."""
    x = sorted(values.tolist())
    found = []
    for i in range(len(x) - MIN_TAIL + 1):
        if i and x[i] == x[i - 1]:
            continue
        tail, start = x[i:], x[i]
        total = sum(math.log(v / start) for v in tail)
        if total <= 0:
            continue
        alpha = 1 + len(tail) / total
        law = stats.pareto(alpha - 1, scale=start)
        found.append((stats.kstest(tail, law.cdf).statistic, alpha, start))
    distance, alpha, start = min(found)
    return alpha, start, distance


@pytest.mark.parametrize("seed", range(3))
def test_the_scan_is_clausets(seed: int) -> None:
    values = torch.randn(90, generator=torch.Generator().manual_seed(seed)).double().exp()
    values = torch.cat([values, values[:12]])  # with equal values
    law = tail_law(values)
    alpha, start, distance = slow_scan(values)
    assert law.alpha == pytest.approx(alpha)
    assert law.x_min == pytest.approx(start)
    assert law.distance == pytest.approx(distance)


def test_the_likelihood_ratio_is_that_of_the_best_exponential() -> None:
    values = torch.randn(600, generator=torch.Generator().manual_seed(4)).double().exp()
    law = tail_law(values)
    x = values[values >= law.x_min * (1 - 1e-12)].numpy()
    own = stats.pareto.logpdf(x, law.alpha - 1, scale=law.x_min)
    scale = x.mean() - law.x_min
    exponential = stats.expon.logpdf(x, loc=law.x_min, scale=scale)
    assert law.exponential == pytest.approx((own - exponential).sum(), rel=1e-6)


def test_an_exponential_tail_is_told_from_a_law() -> None:
    values = -torch.rand(3000, dtype=torch.float64).log() + 0.5
    law = tail_law(values)
    assert law.exponential < 0 or law.count < 300  # or only the outermost values look like a law


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-6, 1e6))
def test_the_tail_exponent_has_no_unit(scale: float) -> None:
    values = pareto(2.2, 200)
    law, scaled = tail_law(values), tail_law(scale * values)
    assert scaled.alpha == pytest.approx(law.alpha)
    assert scaled.x_min == pytest.approx(scale * law.x_min)


def test_nothing_to_fit_is_nan() -> None:
    for values in (torch.ones(50), torch.rand(MIN_TAIL - 1), torch.zeros(40)):
        law = tail_law(values)
        assert math.isnan(law.alpha)
        assert law.count == 0
