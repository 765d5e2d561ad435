"""A panel a kind of place, a line a block: values by rank, and distributions; nulls beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import (
    DASHED,
    depth_bar,
    depth_colors,
    kind_name,
    label_edges,
    log_axes,
    panels_of,
)
from headless.analysis.record import Figure, Finding, Place, Sample, Spectrum
from headless.pages.figures import INK, MUTED, drawing_style, series_color

MARKS = 56  # ranks that a line is drawn through
SMALLEST = 1e-7  # of the first value: what is less is rounding


@dataclass(frozen=True)
class Ranks:
    """What is drawn: the payload's key, names of axes, which are logarithmic, kinds of places.

    `null` and `start` name the dashed and the dotted line, `bar` what the lines' colours are of.
    """

    of: str
    x: str = "rank"
    y: str = "singular value"
    log: str = "xy"
    at: tuple[str, ...] = ()
    null: str = "entries shuffled"
    start: str = "before training"
    bar: str = "block"


def by_rank(
    name: str, caption: str, ranks: Ranks, *, wide: bool = True, film: tuple[str, str] | None = None
) -> Figure:
    """A figure of spectra: the null and the start of the one in the middle."""

    def panel_of(
        panel: Any, own: Mapping[Place, Spectrum], colors: Mapping[int | None, Any]
    ) -> None:
        middle = list(own)[len(own) // 2]
        for place, one in own.items():
            _line(panel, one.values, one.at, color=colors[place.block], lw=1.0)
        for values, style in ((own[middle].null, DASHED), (own[middle].start, "dotted")):
            if values is not None:
                _line(panel, values, own[middle].at, color=INK, ls=style, lw=1.1, zorder=3)
        log_axes(panel, ranks.log)

    def entries(own: Mapping[Place, Spectrum]) -> list[tuple[str, Any, Any]]:
        dashed = any(one.null is not None for one in own.values())
        dotted = any(one.start is not None for one in own.values())
        return [(ranks.null, INK, DASHED)] * dashed + [(ranks.start, INK, "dotted")] * dotted

    draw = partial(
        _draw, of=ranks.of, at=ranks.at, axes=(ranks.x, ranks.y, ranks.bar), panel_of=panel_of,
        entries=entries,
    )  # fmt: skip
    return Figure(name, caption, draw, (ranks.of,), wide, film)


def density(
    name: str,
    caption: str,
    of: str,
    *,
    x: str,
    log: str = "",
    null: str = "null",
    floor: float = 0.0,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Sample`s; the first null is filled.

    Args:
        name: of its file.
        caption: what is drawn.
        of: the payload.
        x: name of the axis.
        log: axes that are logarithmic.
        null: names what is filled.
        floor: of the y axis: what is less is not drawn.
        film: see `Figure`.
    """

    def panel_of(panel: Any, own: Mapping[Place, Sample], colors: Mapping[int | None, Any]) -> None:
        nulls = [one for one in own.values() if one.null is not None]
        for one in nulls[:1]:
            panel.stairs(
                _above(one.null), one.edges, baseline=floor, fill=True, color=MUTED, alpha=0.3
            )
        for place, one in own.items():
            color = INK if place.block is None else colors[place.block]
            panel.stairs(_above(one.density), one.edges, baseline=None, color=color, lw=1.1)
        log_axes(panel, log)
        if floor:
            panel.set_ylim(bottom=floor)

    def _above(values: Any) -> Any:
        return np.where(values > floor, values, np.nan) if floor else values

    def entries(own: Mapping[Place, Sample]) -> list[tuple[str, Any, Any]]:
        filled = any(one.null is not None for one in own.values())
        return [(f"filled: {null}", MUTED, "solid")] * filled

    draw = partial(_draw, of=of, axes=(x, "density", "block"), panel_of=panel_of, entries=entries)
    return Figure(name, caption, draw, (of,), True, film)


def _draw(
    finding: Finding,
    *,
    of: str,
    axes: tuple[str, str, str],
    panel_of: Callable[..., None],
    entries: Callable[[Any], list[tuple[str, Any, Any]]],
    at: tuple[str, ...] = (),
) -> Any:
    from matplotlib.lines import Line2D

    own = {p: one for p, one in finding.payloads[of].items() if not at or p.kind in at}
    kinds = list(dict.fromkeys(place.kind for place in own))
    blocks = sorted({place.block for place in own if place.block is not None}) or [0]
    shades = depth_colors(len(blocks)) if len(blocks) > 1 else [series_color(0)]
    colors: dict[int | None, Any] = {None: series_color(0)}
    colors |= zip(blocks, shades, strict=True)
    with drawing_style():
        figure, panels = panels_of(len(kinds), height=2.4 if len(kinds) > 1 else 3.2)
        for panel, kind in zip(panels, kinds, strict=True):
            panel_of(panel, {p: one for p, one in own.items() if p.kind == kind}, colors)
            if len(kinds) > 1 or kind:
                panel.set_title(kind_name(kind))
        label_edges(panels, *axes[:2])
        if len(blocks) > 1:
            depth_bar(figure, panels, blocks, axes[2])
        handles = [
            Line2D([], [], color=color, linestyle=style, label=label)
            for label, color, style in entries(own)
        ]
        if handles:
            figure.legend(handles=handles, loc="outside upper left", ncols=9, borderaxespad=0.2)
    return figure


def _line(panel: Any, values_R: np.ndarray, at: np.ndarray | None = None, **style: Any) -> None:
    """Some of the values by rank, or all of them `at` places."""
    values = np.asarray(values_R, dtype=float)
    if at is None and len(values):
        values = values[values > SMALLEST * values.max()]
        at = np.unique(np.geomspace(1, len(values), min(MARKS, len(values))).round().astype(int))
        values = values[at - 1]
    if at is not None:
        panel.plot(at, values, marker="o" if len(at) < 8 else None, markersize=4, **style)
