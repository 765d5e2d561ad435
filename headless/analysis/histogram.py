"""Numbers from the histogram of an accumulator: shares and a stand-in for the values themselves.

Inside a bin (2 % wide, 2e-5 near zero) values are taken to be spread evenly.
"""

import numpy as np

from headless.analysis.accumulators import histogram_edges


def shares_below(histogram: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The share of values below each x.

    Args:
        histogram: counts between `histogram_edges`.
        x: any numbers; values exactly at x may count on either side.
    """
    below = np.concatenate([[0.0], np.cumsum(histogram)])
    return np.interp(x, histogram_edges(), below) / below[-1]


def values_of(histogram: np.ndarray, count: int) -> np.ndarray:
    """As many values with this histogram: its quantiles, ascending [count], float64."""
    below = np.concatenate([[0.0], np.cumsum(histogram)])
    wanted = (np.arange(count) + 0.5) / count * below[-1]
    bins = np.searchsorted(below, wanted) - 1
    edges = histogram_edges()
    inside = (wanted - below[bins]) / histogram[bins]
    return edges[bins] + inside * (edges[bins + 1] - edges[bins])
