"""Means over seeds with 95 % intervals, and differences of runs that share a seed.

Student's t with n − 1 degrees of freedom: with three seeds the interval is 2.5 standard deviations
wide on each side, which is what three seeds can tell.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs; `half_width` of its 95 % interval is None for a single run."""

    mean: float
    half_width: float | None
    n: int


def student_t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) of Student's distribution with a whole number of degrees of freedom.

    The closed form of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(degrees // 2):
        if k:
            term *= cosine**2 * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        total += term
    inside = (2 / math.pi) * (theta + sine * total) if odd else sine * total
    return 0.5 + inside / 2


def student_t_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = `probability`, for a probability of at least one half.

    Raises:
        ValueError: no degree of freedom, or a probability outside [0.5, 1).
    """
    if degrees < 1 or not 0.5 <= probability < 1:
        raise ValueError(f"no quantile {probability} for {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while student_t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (
            (middle, high) if student_t_cdf(middle, degrees) < probability else (low, middle)
        )
    return (low + high) / 2


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The mean of the values that are known and finite, with its interval; None without any."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    n = len(known)
    if not n:
        return None
    mean = math.fsum(known) / n
    if n == 1:
        return Estimate(mean, None, 1)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (n - 1))
    t = student_t_quantile((1 + LEVEL) / 2, n - 1)
    return Estimate(mean, t * deviation / math.sqrt(n), n)


def difference(
    values: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> Estimate | None:
    """How much larger `values` are than `baseline`; both by seed.

    Runs with the same seed saw the same data in the same order, so their differences are what is
    averaged (a paired t interval). Without a common seed: the difference of the means, and no
    interval.
    """
    pairs = [
        x - y
        for seed in sorted(values.keys() & baseline.keys())
        if (x := values[seed]) is not None and (y := baseline[seed]) is not None
    ]
    if pairs:
        return estimate(pairs)
    one, other = estimate(values.values()), estimate(baseline.values())
    if one is None or other is None:
        return None
    return Estimate(one.mean - other.mean, None, min(one.n, other.n))
