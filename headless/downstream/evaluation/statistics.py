"""Means over the items of a task with their standard errors: closed forms, no resampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A number and its standard error over the items; None where there are too few to know."""

    value: float
    error: float | None

    def scaled(self, factor: float) -> "Measured":
        """Times a constant."""
        error = None if self.error is None else abs(factor) * self.error
        return Measured(factor * self.value, error)

    def exponential(self) -> "Measured":
        """exp(value); the error by the delta method. Infinite where float64 ends."""
        value = math.exp(self.value) if self.value < 700 else math.inf
        return Measured(value, None if self.error is None else value * self.error)


def mean(values: Sequence[float]) -> Measured:
    """The mean; its error is the sample's deviation (n − 1) over √n: binomial for 0 and 1."""
    n = len(values)
    if not n:
        raise ValueError("no mean of nothing")
    middle = math.fsum(values) / n
    if n < 2:
        return Measured(middle, None)
    variance = math.fsum((value - middle) ** 2 for value in values) / (n - 1)
    return Measured(middle, math.sqrt(variance / n))


def ratio(totals: Sequence[float], counts: Sequence[float]) -> Measured:
    """sum(totals) / sum(counts) over units of different size.

    The error is that of the ratio estimator (Cochran, Sampling Techniques, 1977, 2.11):
    √(n / (n − 1) · Σ (total − ratio · count)²) / Σ count, where the units are independent.
    """
    n, whole = len(totals), math.fsum(counts)
    value = math.fsum(totals) / whole
    if n < 2:
        return Measured(value, None)
    rest = math.fsum((t - value * c) ** 2 for t, c in zip(totals, counts, strict=True))
    return Measured(value, math.sqrt(n / (n - 1) * rest) / whole)
