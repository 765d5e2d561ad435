"""Distributions: one panel a kind of place, one line a block, the null filled."""

from functools import partial
from typing import Any

from headless.analysis.drawing.grid import (
    depth_bar,
    depth_colors,
    kind_name,
    label_edges,
    log_axes,
    panels_of,
)
from headless.analysis.record import Figure, Finding, Sample
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
    wide: bool = True,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Sample`s."""
    draw = partial(_draw, of=of, x=x, y=y, at=at, log=log)
    return Figure(name, caption, draw, (of,), wide, film)


def _draw(finding: Finding, *, of: str, x: str, y: str, at: tuple[str, ...], log: str) -> Any:
    samples = {
        place: payload
        for place, payload in finding.payloads[of].items()
        if isinstance(payload, Sample) and (not at or place.kind in at)
    }
    kinds = list(dict.fromkeys(place.kind for place in samples))
    blocks = sorted({place.block for place in samples if place.block is not None}) or [0]
    colors = dict(zip(blocks, depth_colors(len(blocks)), strict=True))
    with drawing_style():
        figure, panels = panels_of(len(kinds), height=2.4)
        for panel, kind in zip(panels, kinds, strict=True):
            own = {place: one for place, one in samples.items() if place.kind == kind}
            nulls = [one for one in own.values() if one.null is not None]
            for one in nulls[:1]:
                panel.stairs(one.null, one.edges, fill=True, color=MUTED, alpha=0.3)
            for place, one in own.items():
                color = INK if place.block is None else colors[place.block]
                panel.stairs(one.density, one.edges, color=color, lw=1.1)
            log_axes(panel, log)
            panel.set_title(kind_name(kind))
        label_edges(panels, x, y)
        if len(blocks) > 1:
            depth_bar(figure, panels, blocks)
    return figure
