"""Means over seeds with 95 % intervals, and differences of runs that share a seed.

Student's t with n − 1 degrees of freedom: with three seeds the interval is 2.5 standard deviations
wide on each side, which is what three seeds can tell.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headless.structured import is_number

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs; `half_width` of its 95 % interval is None for a single run."""

    mean: float
    half_width: float | None
    n: int

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for a single run."""
        from scipy import stats

        if self.half_width is None:
            return None
        return self.half_width / float(stats.t.ppf((1 + LEVEL) / 2, self.n - 1))


def known(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if is_number(value)]


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The mean of the values that are known and finite, with its interval; None without any."""
    numbers = known(values)
    n = len(numbers)
    if n < 2:
        return Estimate(numbers[0], None, 1) if numbers else None
    from scipy import stats  # a comparison of single runs does without

    half_width = stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(numbers)
    return Estimate(math.fsum(numbers) / n, float(half_width), n)


def difference(
    values: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> Estimate | None:
    """How much larger `values` are than `baseline`; both by seed.

    Runs with the same seed saw the same data in the same order, so their differences are what is
    averaged (a paired t interval); where one has a single run, that of the seed which both have.
    Otherwise: the difference of the means, with Welch's interval where both have several runs, and
    without one where one has a single run.
    """
    pairs = [
        x - y
        for seed in sorted(values.keys() & baseline.keys())
        if is_number(x := values[seed]) and is_number(y := baseline[seed])
    ]
    one, other = estimate(values.values()), estimate(baseline.values())
    if one is None or other is None:
        return None
    if len(pairs) > 1 or (pairs and None in (one.half_width, other.half_width)):
        return estimate(pairs)
    mean, n = one.mean - other.mean, min(one.n, other.n)
    if one.half_width is None or other.half_width is None:
        return Estimate(mean, None, n)
    if not one.half_width + other.half_width:
        return Estimate(mean, 0.0, n)
    from scipy import stats

    with warnings.catch_warnings():  # it doubts the digits of runs that hardly vary
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_ind(known(values.values()), known(baseline.values()), equal_var=False)
        low, high = test.confidence_interval(LEVEL)
    return Estimate(mean, float(high - low) / 2, n)


def leader(
    rows: Sequence[Mapping[int, float | None]], better: Literal["lower", "higher"]
) -> int | None:
    """The place of the row that is better than every other by more than chance.

    That is: the interval of its difference to each of the others leaves zero out. None without one,
    with a single row, and where a row is not known or of a single run.
    """
    sign = 1.0 if better == "higher" else -1.0
    for place, row in enumerate(rows):
        gaps = [difference(row, other) for i, other in enumerate(rows) if i != place]
        if gaps and all(
            gap and gap.half_width is not None and sign * gap.mean > gap.half_width for gap in gaps
        ):
            return place
    return None
