"""Intervals against scipy, which is only here to check them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headless.reports.statistics import (
    difference,
    estimate,
    student_t_cdf,
    student_t_quantile,
)


@given(st.floats(-60, 60), st.integers(1, 200))
def test_cdf(t: float, degrees: int) -> None:
    assert student_t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)


@given(st.floats(0.5, 0.9999), st.integers(1, 200))
def test_quantile(probability: float, degrees: int) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("probability", "degrees"), [(0.975, 0), (0.4, 3), (1.0, 3)])
def test_no_quantile(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_t_quantile(probability, degrees)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_interval(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    spread = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    assert found.half_width == pytest.approx(spread, rel=1e-6, abs=1e-6)


def test_by_hand() -> None:
    found = estimate([3.0, 4.0, 5.0])
    assert found is not None
    assert found.mean == 4.0
    # standard deviation 1, t with two degrees of freedom is 4.30265 (any table)
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_what_is_not_known_does_not_count() -> None:
    found = estimate([None, 2.0, math.nan, math.inf])
    assert found is not None
    assert (found.mean, found.half_width, found.n) == (2.0, None, 1)
    assert estimate([None, math.nan]) is None
    assert estimate([]) is None


def test_differences_are_paired_by_seed() -> None:
    baseline = {1: 10.0, 2: 20.0, 3: 30.0}
    values = {3: 29.0, 1: 9.1, 2: 18.9, 4: 1000.0}
    found = difference(values, baseline)
    expected = stats.ttest_rel([9.1, 18.9, 29.0], [10.0, 20.0, 30.0]).confidence_interval(0.95)
    assert found is not None
    assert found.n == 3
    assert found.half_width is not None
    assert found.mean - found.half_width == pytest.approx(expected.low)
    assert found.mean + found.half_width == pytest.approx(expected.high)


def test_without_a_common_seed_there_is_no_interval() -> None:
    found = difference({1: 1.0, 2: 3.0}, {3: 5.0})
    assert found is not None
    assert (found.mean, found.half_width) == (-3.0, None)
    assert difference({1: None}, {1: 5.0}) is None
