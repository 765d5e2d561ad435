"""The histograms of findings, as a logger wants them: counts between even edges."""

from collections.abc import Iterable, Iterator

import numpy as np

from headless.analysis.finding import Finding

BINS, REACH = 128, 8.0  # of a histogram of activations, and how many standard deviations it shows
ANGLE_BINS = 90  # of 2 degrees

Pair = tuple[np.ndarray, np.ndarray]


def histogram_points(findings: Iterable[Finding]) -> dict[str, Pair]:
    """Counts [K] and edges [K + 1] of every distribution that findings hold, by a key.

    | key | values |
    | --- | --- |
    | `weight_values/q/00` | standardised entries of a matrix, by role and block |
    | `activations/post/00` | entries of the states at a point |
    | `cone/embedding` | angles to the mean direction, in degrees |
    """
    found: dict[str, Pair] = {}
    for finding in findings:
        for name, pair in _of(finding):
            found[f"{finding.name}/{name}"] = pair
    return found


def _of(finding: Finding) -> Iterator[tuple[str, Pair]]:
    edges = finding.arrays.get("edges")
    for name, array in finding.arrays.items():
        if name.endswith("/histogram") and edges is not None:
            yield name.removesuffix("/histogram"), _even(array, edges)
        elif name.startswith("density/"):
            place = name.removeprefix("density/")
            edges_K = edges if edges is not None else np.linspace(-8, 8, len(array) + 1)
            count = float(finding.arrays[f"{place.partition('/')[0]}/count"][0])
            widths = np.diff(edges_K)
            yield place, (np.rint(array * widths * count).astype(np.int64), edges_K)
        elif name.endswith("/angles"):
            finite = array[np.isfinite(array)]
            yield (
                name.removesuffix("/angles"),
                np.histogram(finite, ANGLE_BINS, (0.0, 180.0)),
            )


def _even(counts: np.ndarray, edges: np.ndarray) -> Pair:
    """The same values in even bins around their mean; what lies farther out in the last ones."""
    middles = (edges[1:] + edges[:-1]) / 2
    total = max(float(counts.sum()), 1.0)
    mean = float((counts * middles).sum()) / total
    std = float(np.sqrt(max((counts * (middles - mean) ** 2).sum() / total, 0.0))) or 1.0
    low, high = mean - REACH * std, mean + REACH * std
    inside = np.clip(middles, low, np.nextafter(high, low))
    return np.histogram(inside, BINS, (low, high), weights=counts)
