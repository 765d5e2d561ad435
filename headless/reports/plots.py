"""Curves of runs, and panels of them on one grid: one colour a group, thin lines for seeds, a thick
one for the mean.

Everything is drawn through matplotlib's objects, in the style of `headless.pages.figures`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headless.pages.figures import (
    INK,
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)
from headless.reports.groups import Group, runs_of
from headless.runs.run import Run

LOG_FROM = 30.0  # a first and a last x further apart than this are drawn on a logarithmic axis
TRANSIENT = 0.04  # the first part of a linear axis that may leave the top of the panel
WIDE = 11.2  # inches
DASHES = (0, (3.2, 2.2))
MAX_POINTS = 160  # of a line: what a panel of 3.5 inches can show
LETTERS = 15  # of a legend, an inch

Curve = tuple[np.ndarray, np.ndarray]
Read = Callable[[Run], Curve | None]


@dataclass(frozen=True)
class Panel:
    """A curve of every run over one x."""

    read: Read
    title: str = ""
    x: str = ""
    y: str = ""
    also: Read | None = None  # another curve of the run's, dashed in its colour
    null: Read | None = None  # what no run is compared with but all stand over: dashed and grey
    marked: int = 3  # a line with no more points than this shows them
    finish: Callable[[Any], None] = lambda axes: None  # called when all of the row is drawn


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
    """A metric over "tokens", "seconds", "flops" or "step"; `…/last_layer` is the deepest layer's.
    `relative` divides by the run's width."""

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


def shown(groups: Sequence[Group], panels: Iterable[Panel]) -> list[Panel]:
    """The panels that a group has something for."""
    return [panel for panel in panels if curves_of(runs_of(groups), panel.read)]


def grid(
    groups: Sequence[Group],
    rows: Sequence[Sequence[Panel]],
    *,
    share: bool = True,
    dashed: str = "",
) -> Any | None:
    """A figure of rows of panels; None without any curve.

    Args:
        share: the panels of a row have one y axis, those of a column one x axis.
        dashed: what dashed lines are, where there are some.
    """
    panels = [panel for row in rows for panel in row]
    drawn = shown(groups, panels)
    if not drawn:
        return None
    columns = len(rows[0])
    axes = {"sharex": "col", "sharey": "row"} if share else {}
    with drawing_style():
        figure = new_figure(WIDE * min(1.0, 0.16 + 0.28 * columns), 0.5 + 2.65 * len(rows))
        places = figure.subplots(len(rows), columns, squeeze=False, **axes).ravel()
        for place, panel in zip(places, panels, strict=True):
            for group in groups if panel.null else []:
                for curve in curves_of(group.runs, panel.null)[:1]:  # type: ignore[arg-type]
                    place.plot(*curve, color=MUTED, linewidth=0.9, linestyle=DASHES)
            draw(place, groups, panel.read, marked=panel.marked)
            if panel.also is not None:
                draw(place, groups, panel.also, dashed=True)
            place.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        for place, panel in zip(places, panels, strict=True):
            panel.finish(place)
        having = [g for g in groups if any(curves_of(g.runs, panel.read) for panel in drawn)]
        others = [read for panel in drawn for read in (panel.also, panel.null) if read]
        _legend(
            figure, having, dashed if any(curves_of(runs_of(groups), r) for r in others) else ""
        )
    return figure


def draw(
    panel: Any, groups: Sequence[Group], read: Read, *, dashed: bool = False, marked: int = 3
) -> None:
    """A curve of every group, with its points where a line through so few needs to show them."""
    for group in groups:
        curves = curves_of(group.runs, read)
        if not curves:
            continue
        style = {"linestyle": DASHES if dashed else "solid", "color": series_color(group.index)}
        for x, y in curves if len(curves) > 1 else []:
            panel.plot(x, y, linewidth=0.7, alpha=0.45, **style)
        x, y = mean_curve(curves)
        panel.plot(x, y, marker="o" if len(x) <= marked else None, markersize=4, **style)


def zero_line(panel: Any, at: float = 0.0) -> None:
    panel.axhline(at, color=INK, linewidth=0.7)


def scale_x(panel: Any) -> None:
    """Ticks of an x axis: logarithmic when the panel's lines span a large ratio."""
    x = np.concatenate(
        [np.asarray(p.get_xdata(), float) for p in panel.get_lines()] or [np.empty(0)]
    )
    if not (x > 0).any():
        return
    low, high = x[x > 0].min(), x.max()
    log = high / low > LOG_FROM
    compact_ticks(panel.xaxis, log=log)
    panel.set_xlim(low if log else 0, high * (1.08 if log else 1.02))


def crop(panel: Any) -> None:
    """Leave the first moments of training above the panel, so that the end can be read."""
    lines = [(np.asarray(p.get_xdata()), np.asarray(p.get_ydata())) for p in panel.get_lines()]
    end = max((x.max() for x, _ in lines if len(x)), default=0)
    later = np.concatenate([y[x >= TRANSIENT * end] for x, y in lines] or [np.empty(0)])
    if len(later) and (low := later.min()) < (high := later.max()):
        margin = 0.05 * (high - low)
        panel.set_ylim(low - margin, high + margin)


def _legend(figure: Any, groups: Sequence[Group], dashed: str) -> None:
    """Groups by colour above the panels, and what else the lines are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=series_color(g.index), label=g.label) for g in groups]
    if dashed:
        handles.append(Line2D([], [], color=MUTED, linestyle=DASHES, label=dashed))
    if any(len(group.runs) > 1 for group in groups):
        handles.append(Line2D([], [], color=MUTED, linewidth=0.7, label="single seeds"))
    widest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(LETTERS * figure.get_figwidth() / (8 + widest)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, borderaxespad=0.2)
