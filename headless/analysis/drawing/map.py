"""Matrices as colours: one panel a place, the first row on top."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import NARROW, WIDE, place_name
from headless.analysis.record import Figure, Finding, Map, Place
from headless.pages.figures import compact_ticks, drawing_style, new_figure

NAMED = 16  # rows whose names are shown


def heatmap(
    name: str, caption: str, of: str, *, wide: bool = True, film: tuple[str, str] | None = None,
    **look: Any,
) -> Figure:  # fmt: skip
    """A figure of the payload `of`, whose entries are `Map`s; `look` is that of `draw_maps`."""
    return Figure(name, caption, partial(_draw, of=of, look=look), (of,), wide, film)


def _draw(finding: Finding, *, of: str, look: Mapping[str, Any]) -> Any:
    maps = {place: one for place, one in finding.payloads[of].items() if isinstance(one, Map)}
    return draw_maps(maps, **look)


def draw_maps(
    maps: Mapping[Place, Map],
    *,
    x: str,
    y: str,
    label: str = "",
    limits: tuple[float, float] | None = None,
    log: bool = False,
    cmap: str = "viridis_r",
    size: tuple[float, float] | None = None,
) -> Any:
    """Panels of one scale: x and y name the axes, `label` stands beside the colours, `limits` and
    `log` are of them (None: as the values need), `size` of the whole figure in inches."""
    from matplotlib.colors import LogNorm, Normalize

    every = np.concatenate([one.values.ravel() for one in maps.values()])
    low, high = limits or (float(np.nanmin(every)), float(np.nanmax(every)))
    norm = (LogNorm if log else Normalize)(low, high)
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    with drawing_style():
        figure = new_figure(*(size or (WIDE if columns > 1 else NARROW, 0.4 + 2.8 * rows)))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(maps) :]:
            panel.set_axis_off()
        for panel, (place, one) in zip(panels, maps.items(), strict=False):
            # The middles of the cells are whole numbers.
            edges = (np.arange(count + 1) - 0.5 for count in reversed(one.values.shape))
            mesh = panel.pcolormesh(*edges, one.values, norm=norm, cmap=cmap)
            panel.grid(visible=False)
            panel.invert_yaxis()
            panel.set(title=place_name(place), xlabel=x)
            _name(panel, one)
        for panel in panels[::columns]:
            panel.set_ylabel(y)
        bar = figure.colorbar(mesh, ax=list(panels), fraction=0.04, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
        if log:
            compact_ticks(bar.ax.yaxis, log=True)
    return figure


def _name(panel: Any, one: Map) -> None:
    for axis, names in (("x", one.columns), ("y", one.rows)):
        own = getattr(panel, f"{axis}axis")
        own.get_major_locator().set_params(integer=True)
        if names:
            every = -(-len(names) // NAMED) if axis == "y" else 1
            own.set_ticks(range(0, len(names), every), names[::every])
    if len(one.columns) > NAMED:
        panel.tick_params(axis="x", rotation=90, labelsize=7)
