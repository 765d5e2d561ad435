"""Curves of runs, and the figures of a comparison: one colour a group, thin lines for seeds, a
thick one for the mean.

Everything is drawn through matplotlib's objects, in the style of `headless.pages.figures`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from headless.pages.figures import (
    INK,
    MUTED,
    SURFACE,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)
from headless.pages.numbers import compact, decimals
from headless.reports.groups import Group, runs_of
from headless.reports.statistics import known
from headless.runs.run import AXES, Run

AXIS_NAMES = {"tokens": "training tokens", "seconds": "training seconds", "flops": "training FLOPs"}
LOG_FROM = 30.0  # a first and a last x further apart than this are drawn on a logarithmic axis
TRANSIENT = 0.04  # the first part of a linear axis that may leave the top of the panel
WIDE = 11.2
DASHES = (0, (3.2, 2.2))
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


def learning_curves(groups: Sequence[Group]) -> Any | None:
    """Validation nll and training loss over tokens, seconds and FLOPs; None without any point."""

    def has(key: str, axis: str) -> bool:
        return bool(curves_of(runs_of(groups), logged(key, axis)))

    rows = {
        "val/nll": "validation nll\nnats per token",
        "train/loss": "training loss\nof each objective",
    }
    rows = {key: name for key, name in rows.items() if has(key, "tokens")}
    axes = [axis for axis in AXES if any(has(key, axis) for key in rows)]
    if not rows or not axes:
        return None
    bare = has("val/nll_uncalibrated", "tokens")
    with drawing_style():
        figure = new_figure(WIDE * (0.16 + 0.28 * len(axes)), 0.5 + 2.65 * len(rows))
        panels = figure.subplots(len(rows), len(axes), squeeze=False, sharex="col", sharey="row")
        for row, (key, name) in zip(panels, rows.items(), strict=True):
            for panel, axis in zip(row, axes, strict=True):
                draw(panel, groups, logged(key, axis))
                if key == "val/nll" and bare:
                    draw(panel, groups, logged("val/nll_uncalibrated", axis), dashed=True)
            row[0].set_ylabel(name)
            _crop(row)
        for column, axis in enumerate(axes):
            panels[-1][column].set_xlabel(AXIS_NAMES[axis])
            _scale(panels[-1][column], panels[0][column])
        legend(figure, groups, ["bare tied head, without calibration"] if bare else [])
    return figure


def geometry(groups: Sequence[Group]) -> Any | None:
    """Anisotropy and effective rank by layer at the end, and of two tables over training."""
    runs = runs_of(groups)
    if not any(run.layers for run in runs):
        return None
    relative = all(run.width for run in runs)
    rows = {
        "anisotropy": "anisotropy\nmean cosine",
        "effective_rank": "effective rank\n" + ("share of the width" if relative else ""),
    }
    titles = ("by layer, at the end", "last layer, during training", "embedding table")
    with drawing_style():
        figure = new_figure(WIDE, 5.8)
        panels = figure.subplots(2, 3, sharex="col", sharey="row")
        for row, (measure, name) in zip(panels, rows.items(), strict=True):
            shrink = relative and measure == "effective_rank"
            draw(row[0], groups, _by_layer(measure, shrink), marked=1000)
            for panel, place in zip(row[1:], ("last_layer", "embedding"), strict=True):
                key = f"geometry/{measure}/{place}"
                draw(panel, groups, logged(key, "tokens", relative=shrink))
            row[0].xaxis.get_major_locator().set_params(integer=True)
            row[0].set_xlim(-0.35, max(len(run.layers) for run in runs) - 0.65)
            row[0].set(ylabel=name, ylim=(min(0.0, row[0].get_ylim()[0]), None))
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        panels[1][0].set_xlabel("layer (0: its input)")
        for column in (1, 2):
            panels[1][column].set_xlabel(AXIS_NAMES["tokens"])
            _scale(panels[1][column], panels[0][column])
        legend(figure, groups)
    return figure


def costs(groups: Sequence[Group]) -> Any | None:
    kinds = {run.memory_kind for run in runs_of(groups)}
    bars = {
        "tokens_per_second": "tokens per second",
        "step_ms": "mean step, milliseconds",
        "peak_memory_gib": f"peak memory ({' and '.join(sorted(kinds))}), GiB",
        "flops": "training FLOPs",
    }
    bars = {key: title for key, title in bars.items() if any(g.number(key) for g in groups)}
    if not bars:
        return None
    with drawing_style():
        figure = new_figure(WIDE, 0.75 + 0.36 * len(groups))
        panels = figure.subplots(1, len(bars), squeeze=False)[0]
        for panel, (key, title) in zip(panels, bars.items(), strict=True):
            _bars(panel, groups, key)
            panel.set_title(title)
        for panel in panels[1:]:
            panel.set_yticklabels([])
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


def _by_layer(measure: str, relative: bool) -> Read:
    def read(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
        values = [run.last.get(f"geometry/{measure}/{layer}", np.nan) for layer in run.layers]
        y = np.array(values) / ((run.width or 1) if relative else 1)
        return (np.arange(len(y)), y) if values else None

    return read


def _bars(panel: Any, groups: Sequence[Group], key: str) -> None:
    ends: dict[int, tuple[float, str]] = {}
    for place, group in enumerate(groups):
        number = group.number(key)
        if number is None:
            panel.text(0.01, place, "not known", va="center", color=MUTED)
            continue
        mean, half = number.mean, number.half_width
        panel.barh(place, mean, height=0.58, color=series_color(group.index), alpha=0.88)
        end = mean
        if half is not None:
            dots = known(group.values(key))
            panel.errorbar(mean, place, xerr=half, color=INK, linewidth=0.9, capsize=2.5)
            panel.scatter(
                dots, [place] * len(dots), s=7, color=SURFACE, edgecolor=INK, linewidth=0.5
            ).set_zorder(4)
            end = max(end + half, *dots)
        ends[place] = (end, decimals(mean, 2) if mean < 100 else compact(mean))
    widest = max([0.0, *(end for end, _ in ends.values())])
    for place, (end, text) in ends.items():
        panel.text(end + 0.035 * widest, place, text, va="center", color=INK)
    panel.set_yticks(range(len(groups)), [group.label for group in groups])
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    panel.set(ylim=(len(groups) - 0.45, -0.55), xlim=(0, widest * 1.32 or 1), xticks=[])
    panel.grid(visible=False)
    panel.spines["bottom"].set_visible(False)


def _scale(panel: Any, leading: Any) -> None:
    """Ticks of a shared x axis: logarithmic when the leading panel's lines span a large ratio."""
    lines = leading.get_lines() or panel.get_lines()
    x = np.concatenate([np.asarray(line.get_xdata()) for line in lines] or [np.empty(0)])
    if not (x > 0).any():
        return
    low, high = x[x > 0].min(), x.max()
    log = high / low > LOG_FROM
    compact_ticks(panel.xaxis, log=log)
    panel.set_xlim(low if log else 0, high * (1.08 if log else 1.02))


def _crop(panels: Sequence[Any]) -> None:
    """Leave the first moments of training above the panel, so that the end can be read."""
    low, high = np.inf, -np.inf
    for panel in panels:
        lines = [(np.asarray(p.get_xdata()), np.asarray(p.get_ydata())) for p in panel.get_lines()]
        end = max((x.max() for x, _ in lines if len(x)), default=0)
        for x, y in lines:
            later = y[x >= TRANSIENT * end]
            if len(later):
                low, high = min(low, later.min()), max(high, later.max())
    if low < high:
        margin = 0.05 * (high - low)
        panels[0].set_ylim(low - margin, high + margin)


def legend(figure: Any, groups: Sequence[Group], dashed: Sequence[str] = ()) -> None:
    """Groups by colour above the panels, and what else the lines are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=series_color(g.index), label=g.label) for g in groups]
    handles += [Line2D([], [], color=MUTED, linestyle=DASHES, label=text) for text in dashed]
    if any(len(group.runs) > 1 for group in groups):
        handles.append(Line2D([], [], color=MUTED, linewidth=0.7, label="single seeds"))
    labels = [str(handle.get_label()) for handle in handles]
    columns = next(n for n in range(len(labels), 0, -1) if n == 1 or _letters(labels, n) < 170)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, borderaxespad=0.2)


def _letters(labels: Sequence[str], columns: int) -> int:
    """How wide a legend is, in letters: it is filled column by column."""
    rows = -(-len(labels) // columns)
    parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
    return sum(8 + max(map(len, part)) for part in parts)
