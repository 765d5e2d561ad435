"""Means over seeds with 95 % intervals, and differences of runs that share a seed.

Student's t with n − 1 degrees of freedom: with three seeds the interval is 2.5 standard deviations
wide on each side, which is what three seeds can tell.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headless.structured import is_number

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs; `half_width` of its 95 % interval is None for a single run, or where it
    is no number."""

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


@dataclass(frozen=True)
class Difference(Estimate):
    """Of two sets of runs; `n` pairs, or as many runs as the smaller of two unpaired sets has."""

    p: float | None = None  # two-sided, of a t test; None where there is no interval
    by_seed: dict[int, float] = field(default_factory=dict)  # of each pair; empty: unpaired


def known(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if is_number(value)]


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The mean of the values that are known and finite, with its interval; None without any."""
    numbers = known(values)
    n = len(numbers)
    if n < 2:
        return Estimate(numbers[0], None, 1) if numbers else None
    from scipy import stats  # a comparison of single runs does without

    with np.errstate(over="ignore"):
        half_width = stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(numbers)
    return Estimate(_mean(numbers), _finite(half_width), n)


def _mean(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:  # perplexities of a model that has exploded
        return math.fsum(number / len(numbers) for number in numbers)


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def difference(
    values: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> Difference | None:
    """How much larger `values` are than `baseline`; both by seed, of which those below 0 are none.

    Runs with the same seed saw the same data in the same order, so their differences are what is
    averaged and tested (paired t); only where no seed is in both, it is the difference of the
    means (Welch's t). Without an interval where that leaves one pair, or one run on a side.
    """
    one, other = (
        {seed: float(value) for seed, value in side.items() if is_number(value)}
        for side in (values, baseline)
    )
    if not one or not other:
        return None
    seeds = [seed for seed in sorted(one.keys() & other.keys()) if seed >= 0]
    x, y = ([side[seed] for seed in seeds] or list(side.values()) for side in (one, other))
    mean, n = _mean(x) - _mean(y), min(len(x), len(y))
    by_seed = {seed: one[seed] - other[seed] for seed in seeds}
    if n < 2:
        return Difference(mean, None, n, None, by_seed)
    from scipy import stats

    with warnings.catch_warnings():  # it doubts the digits of runs that hardly vary
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel(x, y) if seeds else stats.ttest_ind(x, y, equal_var=False)
        low, high = test.confidence_interval(LEVEL)
    p = _finite(test.pvalue)  # not known where all runs are the same
    return Difference(mean, _finite((high - low) / 2), n, p, by_seed)
