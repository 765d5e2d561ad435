"""The figures of a comparison: one colour a group, thin lines for seeds, a thick one for the mean.

Everything is drawn through matplotlib's objects, in the style of `headless.pages.figures`.
"""

from collections.abc import Callable, Sequence
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
from headless.reports.groups import Group
from headless.reports.reading import AXES
from headless.reports.statistics import estimate

AXIS_NAMES = {"tokens": "training tokens", "seconds": "training seconds", "flops": "training FLOPs"}
LOG_FROM = 30.0  # a first and a last x further apart than this are drawn on a logarithmic axis
TRANSIENT = 0.04  # the first part of a linear axis that may leave the top of the panel
WIDE = 11.2
MAX_POINTS = 160  # of a line: what a panel of 3.5 inches can show

Curve = tuple[np.ndarray, np.ndarray]


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


def group_curves(group: Group, key: str, axis: str) -> list[Curve]:
    """A metric of each run of a group over an axis, thinned; runs without it are left out."""
    found = []
    for run in group.runs:
        x, y = (np.asarray(values) for values in run.curve(key, axis))
        if axis == "flops":
            x, y = x[x > 0], y[x > 0]
        if len(x):
            found.append(thin((x, y)))
    return found


def learning_curves(groups: Sequence[Group]) -> Any | None:
    """Validation nll and training loss over tokens, seconds and FLOPs; None without any point."""
    rows = [
        ("val/nll", "validation nll\nnats per token"),
        ("train/loss", "training loss\nof each objective"),
    ]
    rows = [row for row in rows if any(group_curves(g, row[0], "tokens") for g in groups)]
    axes = [a for a in AXES if any(group_curves(g, k, a) for g in groups for k, _ in rows)]
    if not rows or not axes:
        return None
    bare = any(group_curves(g, "val/nll_uncalibrated", "tokens") for g in groups)
    with drawing_style():
        figure = new_figure(WIDE * (0.16 + 0.28 * len(axes)), 0.5 + 2.65 * len(rows))
        panels = figure.subplots(len(rows), len(axes), squeeze=False, sharex="col", sharey="row")
        for row, (key, name) in enumerate(rows):
            for column, axis in enumerate(axes):
                panel = panels[row][column]
                _curves(panel, groups, key, axis)
                if key == "val/nll" and bare:
                    _curves(panel, groups, "val/nll_uncalibrated", axis, dashed=True)
                if row == len(rows) - 1:
                    panel.set_xlabel(AXIS_NAMES[axis])
            panels[row][0].set_ylabel(name)
            _crop(panels[row])
        for column in range(len(axes)):
            _scale(panels[-1][column], panels[0][column])
        extra = [("bare tied head, without calibration", "dashed")] if bare else []
        legend(figure, groups, extra)
    return figure


def geometry(groups: Sequence[Group]) -> Any | None:
    """Anisotropy and effective rank by layer at the end, and of two tables over training."""
    if not any(run.layers for group in groups for run in group.runs):
        return None
    relative = all(run.width for group in groups for run in group.runs)
    rows = [
        ("anisotropy", "anisotropy\nmean cosine"),
        ("effective_rank", "effective rank\n" + ("share of the width" if relative else "")),
    ]
    with drawing_style():
        figure = new_figure(WIDE, 5.8)
        panels = figure.subplots(2, 3, sharex="col", sharey="row")
        for row, (measure, name) in enumerate(rows):
            shrink = relative and measure == "effective_rank"
            _by_layer(panels[row][0], groups, measure, shrink)
            _curves(panels[row][1], groups, f"geometry/{measure}/last_layer", "tokens", by=shrink)
            _curves(panels[row][2], groups, f"geometry/{measure}/embedding", "tokens", by=shrink)
            panels[row][0].set_ylabel(name)
            panels[row][0].set_ylim(bottom=min(0.0, panels[row][0].get_ylim()[0]))
        titles = ("by layer, at the end", "last layer, during training", "embedding table")
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        panels[1][0].set_xlabel("layer (0: its input)")
        for column in (1, 2):
            panels[1][column].set_xlabel(AXIS_NAMES["tokens"])
            _scale(panels[1][column], panels[0][column])
        legend(figure, groups, [])
    return figure


def costs(groups: Sequence[Group]) -> Any:
    """Bars of speed and memory, with intervals and a dot for each run."""
    kinds = {run.memory_kind for group in groups for run in group.runs}
    memory = f"peak memory ({' and '.join(sorted(kinds))}), GiB"
    bars: list[tuple[str, Callable[[Group], list[float | None]]]] = [
        ("tokens per second", lambda group: group.values("tokens_per_second")),
        ("mean step, milliseconds", lambda group: group.values("step_ms")),
        (memory, lambda group: group.values("peak_memory_gib")),
        ("training FLOPs", lambda group: group.values("flops")),
    ]
    bars = [bar for bar in bars if any(estimate(bar[1](group)) for group in groups)]
    if not bars:
        return None
    with drawing_style():
        figure = new_figure(WIDE, 0.75 + 0.36 * len(groups))
        panels = figure.subplots(1, len(bars), squeeze=False)[0]
        for panel, (title, read) in zip(panels, bars, strict=True):
            _bars(panel, groups, read)
            panel.set_title(title)
        for panel in panels[1:]:
            panel.set_yticklabels([])
    return figure


def _curves(
    panel: Any, groups: Sequence[Group], key: str, axis: str, dashed: bool = False, by: bool = False
) -> None:
    """One metric of all groups; with `by` divided by each run's width."""
    for group in groups:
        name = key
        if key.endswith("/last_layer"):
            layers = group.first.layers
            name = key.removesuffix("last_layer") + (layers[-1] if layers else "")
        curves = group_curves(group, name, axis)
        if by:
            curves = [(x, y / (group.first.width or 1)) for x, y in curves]
        if not curves:
            continue
        color = series_color(group.index)
        style = {"linestyle": (0, (3.2, 2.2)) if dashed else "solid", "color": color}
        if len(curves) > 1:
            for x, y in curves:
                panel.plot(x, y, linewidth=0.7, alpha=0.45, **style)
        x, y = mean_curve(curves)
        few = len(x) <= 3  # a line through so few points needs to show them
        panel.plot(x, y, marker="o" if few else None, markersize=4, **style)


def _by_layer(panel: Any, groups: Sequence[Group], measure: str, relative: bool) -> None:
    deepest = max(len(run.layers) for group in groups for run in group.runs)
    for group in groups:
        color = series_color(group.index)
        lines = []
        for run in group.runs:
            values = [run.last.get(f"geometry/{measure}/{layer}", np.nan) for layer in run.layers]
            if values:
                lines.append(np.array(values) / ((run.width or 1) if relative else 1))
        lines = [line for line in lines if len(line) == len(lines[0])]
        if not lines:
            continue
        x = np.arange(len(lines[0]))
        if len(lines) > 1:
            for line in lines:
                panel.plot(x, line, color=color, linewidth=0.7, alpha=0.45)
        mean = np.mean(lines, axis=0)
        panel.plot(x, mean, color=color, marker="o", markersize=4)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_xlim(-0.35, max(deepest - 1, 0) + 0.35)


def _bars(panel: Any, groups: Sequence[Group], read: Callable[[Group], list[float | None]]) -> None:
    widest = 0.0
    ends: dict[int, tuple[float, str]] = {}
    for place, group in enumerate(groups):
        found = estimate(read(group))
        if found is None:
            panel.text(0.01, place, "not known", va="center", color=MUTED)
            continue
        color = series_color(group.index)
        panel.barh(place, found.mean, height=0.58, color=color, alpha=0.88)
        end = found.mean
        if found.half_width is not None:
            known = [v for v in read(group) if v is not None]
            panel.errorbar(
                found.mean, place, xerr=found.half_width, color=INK, linewidth=0.9, capsize=2.5
            )
            panel.scatter(
                known, [place] * len(known), s=7, color=SURFACE, edgecolor=INK, linewidth=0.5
            ).set_zorder(4)
            end = max(end + found.half_width, *known)
        widest = max(widest, end)
        ends[place] = (end, decimals(found.mean, 2) if found.mean < 100 else compact(found.mean))
    for place, (end, text) in ends.items():
        panel.text(end + 0.035 * widest, place, text, va="center", color=INK)
    panel.set_yticks(range(len(groups)), [group.label for group in groups])
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    panel.set_ylim(len(groups) - 0.45, -0.55)
    panel.set_xlim(0, widest * 1.32 or 1)
    panel.set_xticks([])
    panel.grid(visible=False)
    panel.spines["bottom"].set_visible(False)


def _scale(panel: Any, leading: Any) -> None:
    """Ticks of a shared x axis: logarithmic when the leading panel's lines span a large ratio."""
    lines = leading.get_lines() or panel.get_lines()
    data = [np.asarray(line.get_xdata()) for line in lines]
    positive = [x[x > 0] for x in data if len(x[x > 0])]
    if not positive:
        return
    low, high = min(x.min() for x in positive), max(x.max() for x in positive)
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


def legend(figure: Any, groups: Sequence[Group], extra: Sequence[tuple[str, str]]) -> None:
    """Groups by colour above the panels, and what else the lines are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=series_color(g.index), label=g.label) for g in groups]
    handles += [
        Line2D([], [], color=MUTED, linestyle=(0, (3.2, 2.2)), label=text) for text, _ in extra
    ]
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
