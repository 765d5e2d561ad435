"""Matrices as colours: one panel a place."""

from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import kind_name, panels_of
from headless.analysis.record import Figure, Finding, Map
from headless.pages.figures import drawing_style


def heatmap(
    name: str,
    caption: str,
    of: str,
    *,
    x: str,
    y: str,
    limits: tuple[float, float] | None = None,
    wide: bool = True,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Map`s; `limits` are of the colours."""
    draw = partial(_draw, of=of, x=x, y=y, limits=limits)
    return Figure(name, caption, draw, (of,), wide)


def _draw(finding: Finding, *, of: str, x: str, y: str, limits: tuple[float, float] | None) -> Any:
    maps = {place: one for place, one in finding.payloads[of].items() if isinstance(one, Map)}
    every = np.concatenate([one.values.ravel() for one in maps.values()])
    low, high = limits or (float(np.nanmin(every)), float(np.nanmax(every)))
    with drawing_style():
        figure, panels = panels_of(len(maps), columns=3, height=3.2)
        for panel, (place, one) in zip(panels, maps.items(), strict=True):
            mesh = panel.pcolormesh(one.values, vmin=low, vmax=high, cmap="viridis")
            panel.grid(visible=False)
            panel.set(title=kind_name(str(place)), xlabel=x, ylabel=y)
            for axis, names in (("x", one.columns), ("y", one.rows)):
                if names:
                    ticks = [index + 0.5 for index in range(len(names))]
                    panel.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": names})
        bar = figure.colorbar(mesh, ax=panels, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
    return figure
