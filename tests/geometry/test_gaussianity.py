"""Shapes of distributions: against SciPy, and recognised where they are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from headless.geometry import best_fit, fit_distributions, gaussian_distance, moments

N = 20_000
DRAWS = {
    "gaussian": stats.norm(0.3, 2.0),
    "logistic": stats.logistic(-1.0, 0.02),
    "laplace": stats.laplace(5.0, 3.0),
    "student_t": stats.t(3.5, loc=0.1, scale=0.7),
}


def draw(name: str, n: int = N) -> Tensor:
    return torch.from_numpy(DRAWS[name].rvs(n, random_state=1))


@pytest.mark.parametrize("name", DRAWS)
def test_moments_are_scipys(name: str) -> None:
    x = draw(name)
    found = moments(x.reshape(100, -1))
    assert found.count == N
    assert found.mean == pytest.approx(float(x.mean()))
    assert found.std == pytest.approx(float(x.numpy().std()))
    assert found.skew == pytest.approx(stats.skew(x.numpy()))
    assert found.excess_kurtosis == pytest.approx(stats.kurtosis(x.numpy()))
    z = ((x - x.mean()) / x.numpy().std()).abs()
    assert found.largest == pytest.approx(float(z.max()))
    expected = float((z > 4).double().mean()) / (2 * stats.norm.sf(4))
    assert found.tail_ratio == pytest.approx(expected)


def test_moments_hold_in_float32_far_from_zero() -> None:
    x = 1000 + torch.randn(200_000)
    assert abs(moments(x).excess_kurtosis) < 0.06


@pytest.mark.parametrize("name", DRAWS)
def test_the_distance_is_kolmogorovs(name: str) -> None:
    x = draw(name, 3000)
    law = stats.norm(x.numpy().mean(), x.numpy().std())
    assert gaussian_distance(x) == pytest.approx(stats.kstest(x.numpy(), law.cdf).statistic)


@pytest.mark.parametrize("name", DRAWS)
def test_a_distribution_is_recognised(name: str) -> None:
    x = draw(name)
    fits = fit_distributions(x)
    assert best_fit(fits, N) == name
    truth = float(DRAWS[name].logpdf(x.numpy()).mean())
    # the likeliest parameters are likelier than the true ones, by about one nat in all
    assert truth <= fits[name].log_likelihood < truth + 6 / N
    assert fits[name].law.logpdf(x.numpy()).mean() == pytest.approx(fits[name].log_likelihood)


@pytest.mark.parametrize("name", ["student_t", "laplace"])
def test_fits_are_of_maximum_likelihood(name: str) -> None:
    x = draw(name, 2000)
    fits = fit_distributions(x)
    nu, location, scale = stats.t.fit(x.numpy())
    assert fits["student_t"].nu == pytest.approx(nu, rel=1e-2)
    reference = stats.t.logpdf(x.numpy(), nu, location, scale).mean()
    assert fits["student_t"].log_likelihood >= reference - 1e-9
    location, scale = stats.logistic.fit(x.numpy())
    assert fits["logistic"].location == pytest.approx(location, abs=1e-3)
    assert fits["logistic"].scale == pytest.approx(scale, rel=1e-3)
    location, scale = stats.laplace.fit(x.numpy())
    assert fits["laplace"].scale == pytest.approx(scale, rel=1e-3)


@settings(deadline=None, max_examples=15)
@given(st.floats(-100, 100), st.floats(1e-4, 1e4))
def test_shapes_have_no_unit(shift: float, scale: float) -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain, moved = moments(x), moments(shift + scale * x)
    assert moved.excess_kurtosis == pytest.approx(plain.excess_kurtosis, abs=1e-5)
    assert gaussian_distance(shift + scale * x) == pytest.approx(gaussian_distance(x), abs=1e-6)
    a, b = fit_distributions(x), fit_distributions(shift + scale * x)
    for name in a:
        difference = b[name].log_likelihood - a[name].log_likelihood
        assert difference == pytest.approx(-math.log(scale), abs=1e-4)


def test_what_does_not_vary_has_no_shape() -> None:
    assert math.isnan(moments(torch.ones(9)).excess_kurtosis)
    assert math.isnan(fit_distributions(torch.ones(9))["student_t"].log_likelihood)


def test_fits_work_without_gradients() -> None:
    with torch.inference_mode():
        x = torch.randn(400)
        assert fit_distributions(x)["student_t"].nu > 3
