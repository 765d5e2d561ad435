"""Two exponents that are both called "the power law" of a spectrum: report both, by name.

The rank exponent b of σ_k ~ k^-b describes all singular values in their order. The tail exponent α
of a density p(λ) ~ λ^-α describes the largest eigenvalues λ = σ² alone, from a threshold on. A
spectrum that is one rank law has α = 1 + 1/(2b); real ones differ.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headless.geometry.spectrum import NOISE

MIN_TAIL = 10  # a tail of fewer values says nothing
_FIT = (0.02, 0.80)
_MAX_STARTS = 500  # thresholds that are tried: of larger spectra, evenly many of the ranks
_CHUNK = 2**21  # entries of the tables of Clauset's scan


@dataclass(frozen=True)
class RankLaw:
    """σ_k = exp(intercept) · k^-exponent."""

    exponent: float  #: b; NaN where fewer than 3 ranks can be fitted
    intercept: float  #: log of the line at rank 1
    r_squared: float  #: of the logarithms, inside the fitted ranks
    #: the first rank from which on every value lies below half the line (the fall-off after the
    #: law), counted from 1; one past the last rank where there is none
    knee: int
    ranks: int  #: of the spectrum that count: values above `NOISE` of the largest
    fitted: tuple[int, int]  #: the first and the last rank of the fit


def rank_law(values_R: Tensor, low: float = _FIT[0], high: float = _FIT[1]) -> RankLaw:
    """Least squares of log σ_k on log k, over the ranks between the shares `low` and `high`.

    Args:
        values_R: singular values (or eigenvalues), descending, none below 0.
    """
    values_R = values_R.double()
    ranks = int((values_R > NOISE * values_R[:1]).sum())
    first, last = max(1, math.ceil(low * ranks)), math.floor(high * ranks)
    if last - first < 2:
        return RankLaw(math.nan, math.nan, math.nan, len(values_R) + 1, ranks, (first, last))
    slope, intercept, r_squared = log_fit(values_R, first, last)
    log_k = torch.arange(1, ranks + 1, dtype=torch.float64, device=values_R.device).log()
    line = intercept + slope * log_k - math.log(2)
    over = (values_R[:ranks].log() >= line).nonzero()
    knee = int(over[-1]) + 2 if len(over) else 1
    return RankLaw(-slope, intercept, r_squared, knee, ranks, (first, last))


def log_fit(values_R: Tensor | np.ndarray, first: int, last: int) -> tuple[float, float, float]:
    """Slope, intercept and R² of log value on log rank, for ranks `first` to `last` from 1 on.

    Values that are not above 0 are left out; NaN for fewer than 3.
    """
    from scipy.stats import linregress

    values = values_R.cpu().numpy() if isinstance(values_R, Tensor) else values_R
    y = np.asarray(values[first - 1 : last], dtype=np.float64)
    x = np.arange(first, first + len(y))[y > 0]
    y = y[y > 0]
    if len(y) < 3:
        return math.nan, math.nan, math.nan
    fit = linregress(np.log(x), np.log(y))
    r_squared = float(fit.rvalue**2) if np.ptp(y) else 1.0
    return float(fit.slope), float(fit.intercept), r_squared


@dataclass(frozen=True)
class TailLaw:
    """p(x) = (α - 1)/x_min · (x/x_min)^-α for x >= x_min."""

    alpha: float  #: NaN where there are fewer than `MIN_TAIL` values, or no spread
    standard_error: float  #: (α - 1)/√count
    x_min: float  #: where the tail begins
    count: int  #: values in the tail
    distance: float  #: Kolmogorov and Smirnov's, between the tail and the law
    #: log likelihood of the law less that of an exponential tail: above 0 the law is the better
    #: one
    exponential: float
    #: probability of so large a difference where both were equally good (Vuong)
    exponential_p: float
    #: the same against a lognormal tail. The law is a limit of lognormals, so this is never above
    #: 0 (but for rounding): with a large p the simpler law is as good.
    lognormal: float
    lognormal_p: float  #: its probability


_NO_TAIL = TailLaw(math.nan, math.nan, math.nan, 0, *[math.nan] * 5)


def tail_law(values_N: Tensor) -> TailLaw:
    """The tail's exponent as Clauset, Shalizi and Newman (2009) fit it.

    Every value that leaves a tail of `MIN_TAIL` or more is tried as x_min (of more than 500 such,
    every so many-th); each gives the exponent of maximum likelihood, and the one whose law is
    nearest to its tail is taken. Values come in any order; what is not above 0 is left out.
    """
    values_N = values_N.double().cpu()
    log_N = values_N[values_N > 0].log().sort().values
    n = len(log_N)
    if n < MIN_TAIL or log_N[0] == log_N[-1]:
        return _NO_TAIL
    starts_S = torch.arange(n - MIN_TAIL + 1)
    # Equal values are one candidate: the first of them, which has all of them in its tail.
    keep_S = torch.ones(len(starts_S), dtype=torch.bool)
    keep_S[1:] = log_N[starts_S[1:]] > log_N[starts_S[1:] - 1]
    starts_S = starts_S[keep_S & (log_N[starts_S] < log_N[-1])]
    if not len(starts_S):
        return _NO_TAIL
    starts_S = starts_S[:: math.ceil(len(starts_S) / _MAX_STARTS)]
    counts_S = (n - starts_S).double()
    from_end_N = log_N.flip(0).cumsum(0).flip(0)
    rates_S = counts_S / (from_end_N[starts_S] - counts_S * log_N[starts_S])
    size = max(1, _CHUNK // n)
    distances_S = torch.cat(
        [
            _distances(log_N, starts, rates)
            for starts, rates in zip(starts_S.split(size), rates_S.split(size), strict=True)
        ]
    )
    best = int(distances_S.argmin())
    start, rate, count = int(starts_S[best]), float(rates_S[best]), int(counts_S[best])
    y_N = log_N[start:] - log_N[start]  # under the law: exponential with rate α - 1
    law_N = math.log(rate) - rate * y_N
    exponential, exponential_p = _vuong(law_N - _exponential(y_N))
    lognormal, lognormal_p = _vuong(law_N - _lognormal(y_N))
    return TailLaw(
        alpha=1 + rate,
        standard_error=rate / math.sqrt(count),
        x_min=math.exp(float(log_N[start])),
        count=count,
        distance=float(distances_S[best]),
        exponential=exponential,
        exponential_p=exponential_p,
        lognormal=lognormal,
        lognormal_p=lognormal_p,
    )


def _distances(log_N: Tensor, starts_S: Tensor, rates_S: Tensor) -> Tensor:
    """Largest difference between a tail's distribution and its law, for each beginning [S]."""
    n = len(log_N)
    place_SN = torch.arange(n)[None] - starts_S[:, None]
    inside_SN = place_SN >= 0
    over_SN = (log_N[None] - log_N[starts_S][:, None]).clamp(min=0)
    law_SN = -torch.expm1(-rates_S[:, None] * over_SN)
    counts_S1 = (n - starts_S).double()[:, None]
    above_SN = ((place_SN + 1) / counts_S1 - law_SN).abs()
    below_SN = (place_SN / counts_S1 - law_SN).abs()
    return torch.maximum(above_SN, below_SN).where(inside_SN, 0.0).amax(dim=1)


def _exponential(y_N: Tensor) -> Tensor:
    """Log density of y = log(x/x_min) where x - x_min is exponential, by maximum likelihood."""
    over_N = torch.expm1(y_N)
    rate = 1 / over_N.mean()
    return rate.log() - rate * over_N + y_N


def _lognormal(y_N: Tensor) -> Tensor:
    """Log density of y where it is normal, cut off below 0, by maximum likelihood.

    The two equations for mean and square become one in z = μ/σ: E[y²]/E[y]² falls from 2
    (z = -∞, the power law) to 1, so bisection finds it.
    """
    mean = float(y_N.mean())
    ratio = float(y_N.square().mean()) / mean**2
    low, high = -40.0, 40.0
    for _ in range(100):
        z = (low + high) / 2
        over = z + math.exp(_log_hazard(z))
        low, high = (z, high) if (1 + z * over) / over**2 > ratio else (low, z)
    sigma = mean / (z + math.exp(_log_hazard(z)))
    y_N = y_N / sigma
    return _log_hazard(z) + z * y_N - y_N.square() / 2 - math.log(sigma)


def _log_hazard(z: float) -> float:
    """Log of φ(z)/Φ(z), a Gaussian's density over its distribution function."""
    from scipy.special import erfcx, log_ndtr

    if z < 0:  # without cancellation
        return -math.log(math.sqrt(math.pi / 2) * float(erfcx(-z / math.sqrt(2))))
    return -(z**2) / 2 - math.log(2 * math.pi) / 2 - float(log_ndtr(z))


def _vuong(difference_N: Tensor) -> tuple[float, float]:
    """The summed log likelihood ratio, and how probable one as large is under equal fits."""
    total = float(difference_N.sum())
    spread = float(difference_N.std(correction=0)) * math.sqrt(len(difference_N))
    if spread <= 1e-12 * max(1.0, abs(total)):
        return total, 1.0
    return total, math.erfc(abs(total) / spread / math.sqrt(2))
