"""Which interval is taken: over runs, over pairs of runs, Welch's, or none."""

import math
from typing import Literal

import pytest

from headless.pages.page import Column
from headless.reports.statistics import difference, estimate
from headless.reports.tables import Quantity, Scores, Table

# Student's t for 95 %, two degrees of freedom, from any table.
T2 = 4.30265


def test_a_mean_with_its_interval() -> None:
    number = estimate([3.0, 4.0, 5.0])
    assert number is not None
    assert (number.mean, number.n) == (4.0, 3)
    assert number.half_width == pytest.approx(T2 / math.sqrt(3), rel=1e-5)  # deviation 1
    assert number.standard_error == pytest.approx(1 / math.sqrt(3))


def test_what_is_not_known_does_not_count() -> None:
    number = estimate([None, 2.0, math.nan, math.inf])
    assert number is not None
    assert (number.mean, number.half_width, number.n) == (2.0, None, 1)
    assert estimate([None, math.nan]) is None
    assert estimate([]) is None


def test_differences_are_paired_by_seed() -> None:
    baseline = {1: 10.0, 2: 20.0, 3: 30.0}
    number = difference({3: 29.0, 1: 9.0, 2: 18.0, 4: 1000.0}, baseline)
    assert number is not None
    assert number.n == 3
    assert number.mean == pytest.approx(-4 / 3)
    deviation = math.sqrt(1 / 3)  # of -1, -2 and -1
    assert number.half_width == pytest.approx(T2 * deviation / math.sqrt(3), rel=1e-5)


def test_a_single_run_without_a_common_seed_has_no_interval() -> None:
    number = difference({1: 1.0, 2: 3.0}, {3: 5.0})
    assert number is not None
    assert (number.mean, number.half_width) == (-3.0, None)
    assert difference({1: None}, {1: 5.0}) is None


def test_without_common_seeds_the_interval_is_welch_s() -> None:
    number = difference({1: 1.0, 2: 3.0, 3: 5.0}, {4: 10.0, 5: 10.0, 6: 10.0})
    assert number is not None
    # The other one does not vary, so all is the first one's: deviation 2, two degrees of freedom.
    assert number.mean == -7.0
    assert number.half_width == pytest.approx(T2 * 2 / math.sqrt(3), rel=1e-5)
    steady = difference({1: 1.0, 2: 1.0}, {4: 10.0, 5: 10.0})
    assert steady is not None
    assert (steady.mean, steady.half_width) == (-9.0, 0.0)


def leader(rows: list[dict[int, float | None]], better: Literal["lower", "higher"]) -> int | None:
    """The place of the row that a table marks."""
    shown = Quantity("key", "key", better=better)
    table = Table(
        Column(""), [shown], [Scores("", [*row], {"key": [*row.values()]}) for row in rows]
    )
    best = table.leading(shown)
    return None if best is None else table.rows.index(best)


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


def test_what_overflows_has_no_interval() -> None:
    found = estimate([1e308, 1.5e308, 1.7e308])
    assert found is not None
    assert found.mean == pytest.approx(1.4e308)
    assert found.half_width is None
    apart = difference({1: 1e308, 2: 1.7e308}, {1: 2.0, 2: 3.0})
    assert apart is not None
    assert apart.half_width is None
