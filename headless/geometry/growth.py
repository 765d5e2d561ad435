"""How a positive number grows from step to step: by a factor, or by an amount."""

import math
from dataclasses import dataclass

import numpy as np

LEAST = 5  # values: two laws of two parameters each need some to disagree on
MARGIN = 4.0  # difference of AIC from which on one law is chosen
RISES = 0.9  # R² of the better law, in logarithms: below it neither describes the values
# Slopes over intercepts that are tried for a linear law.
SLOPES = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 20_001)])
EXACT = 1e-9  # mean squared error of logarithms that is rounding, of these slopes too


@dataclass(frozen=True)
class Growth:
    """An exponential law beside a linear one, both fitted to the logarithms."""

    factor: float  #: by which the exponential law grows with each step
    exponential_r2: float  #: share of the logarithms' variance that y = a·fᵏ explains
    linear_r2: float  #: the same of y = a + b·k, b at least 0
    #: Akaike's criterion of the linear law less that of the exponential one: above 0 the
    #: exponential law fits better
    evidence: float

    @property
    def exponential(self) -> bool | None:
        """Whether the values grow exponentially; None: the two laws cannot be told apart."""
        if not (self.factor > 1 and max(self.exponential_r2, self.linear_r2) >= RISES):
            return False
        return None if abs(self.evidence) < MARGIN else self.evidence > 0


def growth(values_L: np.ndarray) -> Growth | None:
    """Compare the two laws with one error model: each value is off by a random factor.

    None for fewer than `LEAST` values, or where one is not positive and finite.
    """
    values_L = np.asarray(values_L, dtype=np.float64)
    length = len(values_L)
    if length < LEAST or not (np.isfinite(values_L).all() and (values_L > 0).all()):
        return None
    step_L, log_L = np.arange(length, dtype=np.float64), np.log(values_L)
    slope, intercept = np.polyfit(step_L, log_L, 1)
    exponential = float(np.square(log_L - intercept - slope * step_L).mean())
    # Of a + b·k the best log a is the mean of what is left.
    linear = float((log_L - np.log1p(np.outer(SLOPES, step_L))).var(axis=1).min())
    variance = float(log_L.var())
    return Growth(
        factor=math.exp(slope),
        exponential_r2=1 - exponential / variance if variance else 0.0,
        linear_r2=1 - linear / variance if variance else 0.0,
        # As many parameters on both sides: what is left of the criteria are the errors.
        evidence=length * math.log((linear + EXACT) / (exponential + EXACT)),
    )
