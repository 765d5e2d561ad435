"""Numbers over the blocks: one line a measure, or one a kind of place; nulls are dashed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from headless.analysis.drawing.grid import (
    DASHED,
    kind_color,
    kind_name,
    log_axes,
    panels_of,
)
from headless.analysis.record import STREAM, Figure, Finding
from headless.pages.figures import INK, MUTED, drawing_style, series_color


@dataclass(frozen=True)
class Panel:
    """One panel; of several measures each is a line, of one each kind of place is."""

    title: str
    of: tuple[str, ...]  #: measures
    at: tuple[str, ...] = ()  #: kinds; none: all. `STREAM` is one line through its three kinds
    y: str = ""  #: name of its axis
    log: str = ""  #: axes that are logarithmic; "s": y, where it is large and of both signs
    limits: tuple[float | None, float | None] = (None, None)  #: of the y axis
    zero: bool = False  #: a line at 0
    nulls: bool = True  #: draw them, where there are some


def by_depth(
    name: str,
    caption: str,
    *panels: Panel,
    wide: bool = True,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of panels side by side, each over the blocks."""
    of = tuple(dict.fromkeys(panel.of[0] for panel in panels))
    return Figure(
        name, caption, partial(_draw, panels), of, wide, film, has=lambda f: bool(_rows(panels, f))
    )


def _rows(panels: Sequence[Panel], finding: Finding) -> list[Panel]:
    """Those with a line: a family without norms before its parts has no gains to show."""
    return [panel for panel in panels if any(lines(panel, finding))]


def _draw(panels: Sequence[Panel], finding: Finding) -> Any:
    rows = _rows(panels, finding)
    with drawing_style():
        figure, axes = panels_of(len(rows), columns=2, height=3.4)
        for panel, row in zip(axes, rows, strict=True):
            _panel(panel, row, finding)
    return figure


def _panel(panel: Any, row: Panel, finding: Finding) -> None:
    for line in lines(row, finding):
        few = "o" if len(line.x) < 8 and not line.null else None
        style: dict[str, Any] = {"lw": 0.9, "ls": DASHED} if line.null else {"lw": line.width}
        style |= {"color": line.color, "label": line.label, "marker": line.marker or few}
        panel.plot(line.x, line.y, markersize=4, **style)
    if row.zero:
        panel.axhline(0, color=INK, lw=0.7)
    log_axes(panel, row.log)
    panel.set(title=row.title, xlabel="block", ylabel=row.y)
    panel.set_ylim(*row.limits)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(fontsize=7.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


class Line(NamedTuple):
    """What one line of a panel shows."""

    label: str
    x: np.ndarray
    y: np.ndarray
    color: str
    null: bool = False
    width: float = 1.4
    marker: str = ""


def lines(row: Panel, finding: Finding) -> Iterator[Line]:
    """The lines of a panel: kinds without blocks are points at the left edge."""
    found = [finding.series[name] for name in row.of if name in finding.series]
    shown = [series for series in found if series.at(*row.at).places]
    for index, series in enumerate(shown):
        part = series.at(*row.at)
        depth = 1 + max((p.block for p in part.places if p.block is not None), default=0)
        groups = [STREAM] if row.at == STREAM else [(kind,) for kind in part.kinds]
        for kinds in groups:
            one = part.at(*kinds)
            x = np.array([_place(place.kind, place.block, depth) for place in one.places])
            several = len(shown) > 1 or kinds == STREAM
            color = series_color(index) if several else kind_color(kinds[0])
            label = series.measure.label if several else kind_name(kinds[0])
            alone = sum(x < -1) and "D^sv"[part.kinds.index(kinds[0]) % 4]
            width = 2.0 if several and not index else 1.2
            yield Line(label, x, one.value, color, False, width, alone or "")
            if row.nulls and one.null is not None:
                words = re.sub("[_/]|null", " ", series.measure.null).strip()
                yield Line(
                    f"{words} (null)" if several else "_",
                    x,
                    one.null,
                    MUTED if several else color,
                    null=True,
                )


def _place(kind: str, block: int | None, depth: int) -> float:
    if block is not None:
        return float(block)
    return {"embed": -1.0, "norm_f": float(depth)}.get(kind, -1.5)
