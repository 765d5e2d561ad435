"""Distributions: one panel a kind of place, one line a block, the null filled."""

from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import by_kind, legend, log_axes
from headless.analysis.record import Figure, Finding, Place, Sample
from headless.pages.figures import INK, MUTED, drawing_style


def density(
    name: str,
    caption: str,
    of: str,
    *,
    x: str,
    y: str = "density",
    at: tuple[str, ...] = (),
    log: str = "",
    null: str = "null",
    floor: float = 0.0,
    wide: bool = True,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Sample`s.

    Args:
        name: of its file.
        caption: what is drawn.
        of: the payload.
        x: name of the axis.
        y: name of the other.
        at: kinds of places; none: all.
        log: axes that are logarithmic.
        null: names what is filled.
        floor: of the y axis: what is less is not drawn.
        wide: needs the page's whole width.
        film: see `Figure`.
    """
    draw = partial(_draw, of=of, axes=(x, y), at=at, log=log, null=null, floor=floor)
    return Figure(name, caption, draw, (of,), wide, film)


def _draw(
    finding: Finding,
    *,
    of: str,
    axes: tuple[str, str],
    at: tuple[str, ...],
    log: str,
    null: str,
    floor: float,
) -> Any:
    samples = {
        place: payload
        for place, payload in finding.payloads[of].items()
        if isinstance(payload, Sample) and (not at or place.kind in at)
    }

    def panel_of(panel: Any, own: dict[Place, Sample], colors: dict[int, Any]) -> None:
        nulls = [one for one in own.values() if one.null is not None]
        for one in nulls[:1]:
            _stairs(panel, one.null, one.edges, floor, fill=True, color=MUTED, alpha=0.3)
        for place, one in own.items():
            color = INK if place.block is None else colors[place.block]
            _stairs(panel, one.density, one.edges, floor, color=color, lw=1.1)
        log_axes(panel, log)
        if floor:
            panel.set_ylim(bottom=floor)

    with drawing_style():
        figure = by_kind(samples, panel_of, *axes)
        if any(one.null is not None for one in samples.values()):
            legend(figure, [(f"filled: {null}", MUTED, "-")])
    return figure


def _stairs(panel: Any, density: Any, edges: np.ndarray, floor: float, **style: Any) -> None:
    shown = np.where(density > floor, density, np.nan) if floor else density
    panel.stairs(shown, edges, baseline=floor if style.get("fill") else None, **style)
