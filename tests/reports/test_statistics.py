"""Intervals against scipy, which is only here to check them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headless.reports.statistics import difference, estimate, leader


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


def test_a_single_run_without_a_common_seed_has_no_interval() -> None:
    found = difference({1: 1.0, 2: 3.0}, {3: 5.0})
    assert found is not None
    assert (found.mean, found.half_width) == (-3.0, None)
    assert difference({1: None}, {1: 5.0}) is None


def test_without_common_seeds_the_interval_is_welch_s() -> None:
    one, other = [9.1, 18.9, 29.0, 25.0], [10.0, 10.5]
    found = difference(dict(enumerate(one)), dict(enumerate(other, start=10)))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert found.half_width is not None
    assert found.mean - found.half_width == pytest.approx(expected.low)
    assert found.mean + found.half_width == pytest.approx(expected.high)


def test_the_leader_is_ahead_of_all_others_by_more_than_chance() -> None:
    sure = {1: 1.0, 2: 1.1, 3: 1.2}
    behind = {1: 2.0, 2: 2.1, 3: 2.3}
    wild = {1: 34.0, 2: 0.1, 3: 70.0}
    assert leader([behind, sure], "lower") == 1
    assert leader([behind, sure], "higher") == 0
    assert leader([sure, behind, wild], "lower") is None  # 1.1 against 34.7 ± 87
    assert leader([sure], "lower") is None
    assert leader([{1: 1.0}, {1: 2.0}], "lower") is None  # a seed each
    assert leader([sure, {1: None}], "lower") is None
