"""Curves of runs: read, thinned, averaged over seeds, and where they come down to a level."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from headless.runs.run import Run

MAX_POINTS = 160  # of a line: what a panel of 3.5 inches can show

Curve = tuple[np.ndarray, np.ndarray]
Read = Callable[[Run], Curve | None]


def thin(curve: Curve, limit: int = MAX_POINTS) -> Curve:
    """At most `limit` points: means of neighbours, fewer of them where the curve begins."""
    x, y = curve
    if len(x) <= limit:
        return curve
    edges = np.unique(np.geomspace(1, len(x), limit + 1).astype(int)) - 1
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds where all of them have values, interpolated to the densest one's x."""
    dense = max(curves, key=lambda curve: len(curve[0]))[0]
    low, high = max(c[0][0] for c in curves), min(c[0][-1] for c in curves)
    x = dense[(dense >= low) & (dense <= high)]
    x = np.unique(np.concatenate([[low], x, [high]])) if low <= high else dense[:0]
    return x, np.mean([np.interp(x, *curve) for curve in curves], axis=0)


def logged(key: str, axis: str, *, relative: bool = False) -> Read:
    """A metric over "tokens", "seconds", "flops" or "step".

    Args:
        key: of the metric; `…/last_layer` is that of the deepest layer.
        axis: what it is over.
        relative: to the run's width.
    """

    def read(run: Run) -> Curve | None:
        last = run.layers[-1] if run.layers else ""
        name = key.removesuffix("last_layer") + last if key.endswith("/last_layer") else key
        x, y = map(np.asarray, run.curve(name, axis))
        if axis == "flops":
            x, y = x[x > 0], y[x > 0]
        return (x, y / (run.width or 1) if relative else y) if len(x) else None

    return read


def curves_of(runs: Iterable[Run], read: Read) -> list[Curve]:
    """A curve of each run that has one, thinned."""
    curves = (read(run) for run in runs)
    return [thin(curve) for curve in curves if curve is not None and np.isfinite(curve[1]).any()]


def reached_at(curve: Curve, level: float) -> float | None:
    """The x at which a curve first is at or below a level, by a straight line from the point
    before; None where it never is."""
    x, y = curve
    below = np.flatnonzero(y <= level)
    if not len(below):
        return None
    first = int(below[0])
    before = max(first - 1, 0)
    return float(np.interp(level, y[[first, before]], x[[first, before]]) if first else x[0])
