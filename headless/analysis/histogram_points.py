"""The histograms of findings, as a logger wants them: counts between even edges."""

from collections.abc import Iterable

import numpy as np

from headless.analysis.record import Finding, Sample

BINS, REACH = 128, 8.0  # of a histogram of other edges, and how many standard deviations it shows

Pair = tuple[np.ndarray, np.ndarray]


def histogram_points(findings: Iterable[Finding]) -> dict[str, Pair]:
    """Counts [K] and even edges [K + 1] of every sample that knows how many values it is of.

    | key | values |
    | --- | --- |
    | `weight_values/q/00` | standardised entries of a matrix, by role and block |
    | `activations/post/00` | entries of the states at a point |
    | `cone/embedding` | angles to the mean direction, in degrees |
    """
    return {
        f"{finding.name}/{place}": _pair(sample)
        for finding in findings
        for key, samples in finding.payloads.items()
        if not key.startswith("_")
        for place, sample in samples.items()
        if isinstance(sample, Sample) and sample.count
    }


def _pair(sample: Sample) -> Pair:
    widths = np.diff(sample.edges)
    if np.allclose(widths, widths[0]):
        counts = sample.density * widths * sample.count
        return np.rint(counts).astype(np.int64), sample.edges
    return _even(sample.density, sample.edges)


def _even(counts: np.ndarray, edges: np.ndarray) -> Pair:
    """The same values in even bins around their mean; what lies farther out in the last ones."""
    middles = (edges[1:] + edges[:-1]) / 2
    total = max(float(counts.sum()), 1.0)
    mean = float((counts * middles).sum()) / total
    std = float(np.sqrt(max((counts * (middles - mean) ** 2).sum() / total, 0.0))) or 1.0
    low, high = mean - REACH * std, mean + REACH * std
    inside = np.clip(middles, low, np.nextafter(high, low))
    return np.histogram(inside, BINS, (low, high), weights=counts)
