"""Two exponents that are both called "the power law" of a spectrum: report both, by name.

The rank exponent b of σ_k ~ k^-b describes all singular values in their order. The tail exponent α
of a density p(λ) ~ λ^-α describes the largest eigenvalues λ = σ² alone, from a threshold on. A
spectrum that is one rank law has α = 1 + 1/(2b); real ones differ.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headless.geometry.spectrum import NOISE

MIN_TAIL = 10  # a tail of fewer values says nothing
MAX_STARTS = 500  # thresholds that are tried: of larger spectra, evenly many of the ranks
AT_ONCE = 1 << 18  # numbers: of several tails, as wide as the longest


@dataclass(frozen=True)
class RankLaw:
    """σ_k = exp(intercept) · k^-exponent."""

    exponent: float  #: b; NaN where fewer than 3 ranks can be fitted
    intercept: float  #: log of the line at rank 1
    r_squared: float  #: of the logarithms, inside the fitted ranks
    #: the first rank from which on every value lies below half the line (the fall-off after the
    #: law), counted from 1; one past the last rank where there is none
    knee: int
    fitted: tuple[int, int]  #: the first and the last rank of the fit


def rank_law(values_R: Tensor, low: float = 0.02, high: float = 0.80) -> RankLaw:
    """Least squares of log σ_k on log k, over the ranks between the shares `low` and `high` of
    those whose values are above `NOISE` of the largest.

    Args:
        values_R: singular values (or eigenvalues), descending, none below 0.
    """
    values = values_R.double().cpu().numpy()
    ranks = int((values > NOISE * values[:1]).sum())
    first, last = max(1, math.ceil(low * ranks)), math.floor(high * ranks)
    slope, intercept, r_squared = log_fit(values, first, last)
    knee = len(values) + 1
    if not math.isnan(slope):
        line = intercept + slope * np.log(np.arange(1, ranks + 1)) - math.log(2)
        over = np.flatnonzero(np.log(values[:ranks]) >= line)
        knee = int(over[-1]) + 2 if len(over) else 1
    return RankLaw(-slope, intercept, r_squared, knee, (first, last))


def log_fit(values_R: Tensor | np.ndarray, first: int, last: int) -> tuple[float, float, float]:
    """Slope, intercept and R² of log value on log rank, for ranks `first` to `last` from 1 on.

    Values that are not above 0 are left out; NaN for fewer than 3.
    """
    values = values_R.cpu().numpy() if isinstance(values_R, Tensor) else values_R
    y = np.asarray(values[first - 1 : last], dtype=np.float64)
    x = np.arange(first, first + len(y))[y > 0]
    y = y[y > 0]
    if len(y) < 3:
        return math.nan, math.nan, math.nan
    log_x, log_y = np.log(x), np.log(y)
    slope, intercept = np.polyfit(log_x, log_y, 1).tolist()
    r_squared = float(np.corrcoef(log_x, log_y)[0, 1] ** 2) if np.ptp(y) else 1.0
    return slope, intercept, r_squared


@dataclass(frozen=True)
class TailLaw:
    """p(x) = (α - 1)/x_min · (x/x_min)^-α for x >= x_min."""

    alpha: float = math.nan  #: NaN where there are fewer than `MIN_TAIL` values, or no spread
    standard_error: float = math.nan  #: (α - 1)/√count
    x_min: float = math.nan  #: where the tail begins
    count: int = 0  #: values in the tail
    distance: float = math.nan  #: Kolmogorov and Smirnov's, between the tail and the law
    #: log likelihood of the law less that of an exponential tail: above 0 the law is the better
    #: one
    exponential: float = math.nan


def tail_law(values_N: Tensor) -> TailLaw:
    """The tail's exponent as Clauset, Shalizi and Newman (2009) fit it.

    Every value that leaves a tail of `MIN_TAIL` or more is tried as x_min (of more than 500 such,
    every so many-th); each gives the exponent of maximum likelihood, and the one whose law is
    nearest to its tail is taken. Values come in any order; what is not above 0 is left out.
    """
    values = values_N.double().cpu().numpy()
    log_N = np.sort(np.log(values[values > 0]))
    # Of equal values the first is tried, which has all of them in its tail.
    first = np.flatnonzero(np.diff(log_N, prepend=-np.inf) > 0).tolist()
    starts = [s for s in first if s <= len(log_N) - MIN_TAIL and log_N[s] < log_N[-1]]
    if not starts:
        return TailLaw()
    tried = starts[:: math.ceil(len(starts) / MAX_STARTS)]
    size = max(1, AT_ONCE // len(log_N))
    blocks = (np.array(tried[i : i + size]) for i in range(0, len(tried), size))
    distance, rate, start = min(_nearest_tail(log_N, starts_S) for starts_S in blocks)
    y_N = log_N[start:] - log_N[start]  # under the law: exponential with rate α - 1
    over_N = np.expm1(y_N)  # under the other: x/x_min - 1 is
    exponential = -np.log(over_N.mean()) - over_N / over_N.mean() + y_N
    return TailLaw(
        alpha=1 + rate,
        standard_error=rate / math.sqrt(len(y_N)),
        x_min=math.exp(log_N[start]),
        count=len(y_N),
        distance=distance,
        exponential=float((math.log(rate) - rate * y_N - exponential).sum()),
    )


def _nearest_tail(log_N: np.ndarray, starts_S: np.ndarray) -> tuple[float, float, int]:
    """Of the tails that begin there the one that is nearest to its likeliest law: the largest
    difference between the two distributions, the law's rate, and where it begins."""
    index_N = np.arange(len(log_N))
    inside_SN = index_N >= starts_S[:, None]
    y_SN = np.where(inside_SN, log_N - log_N[starts_S][:, None], 0.0)
    count_S = len(log_N) - starts_S
    rate_S = count_S / y_SN.sum(axis=1)
    law_SN = -np.expm1(-rate_S[:, None] * y_SN)
    above_SN = law_SN - (index_N - starts_S[:, None]) / count_S[:, None]
    # A tail's distribution jumps at each of its values: the law lies between two steps of it.
    distance_SN = np.maximum(above_SN, 1 / count_S[:, None] - above_SN)
    distance_S = distance_SN.max(axis=1, where=inside_SN, initial=0.0)
    best = int(distance_S.argmin())
    return float(distance_S[best]), float(rate_S[best]), int(starts_S[best])
