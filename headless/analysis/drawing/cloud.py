"""Points in the plane or in space: one panel a place, coloured by a number."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import WIDE, place_name
from headless.analysis.record import Cloud, Figure, Finding
from headless.pages.figures import INK, drawing_style, new_figure, series_color


def cloud(
    name: str,
    caption: str,
    of: str,
    *,
    color: str = "",
    equal: bool = False,
    together: bool = False,
    wide: bool = True,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Cloud`s.

    Args:
        name: of its file.
        caption: what is drawn.
        of: the payload; clouds whose points have three coordinates are drawn in space.
        color: name of the colour bar.
        equal: one scale for both axes.
        together: one panel for all, each in a colour of its own.
        wide: needs the page's whole width.
        film: see `Figure`.
    """
    draw = partial(_draw, of=of, color=color, equal=equal, together=together)
    return Figure(name, caption, draw, (of,), wide, film)


def _draw(finding: Finding, *, of: str, color: str, equal: bool, together: bool) -> Any:
    clouds = {p: c for p, c in finding.payloads[of].items() if isinstance(c, Cloud)}
    solid = any(one.points.shape[1] > 2 for one in clouds.values())
    with drawing_style():
        figure, panels = _panels(1 if together else len(clouds), solid)
        for index, (place, one) in enumerate(clouds.items()):
            panel = panels[0] if together else panels[index]
            marks = _dots(panel, one, series_color(index), place_name(place) if together else "")
            for path, style in zip(one.lines, ("-", "--", "--"), strict=False):
                shade = series_color(index) if together else INK
                panel.plot(*path.T, style, color=shade, lw=2.0 if together else 0.9)
            if one.lines:
                panel.plot(*([0.0] for _ in one.points[0]), "+", color=INK, ms=11, mew=1.8)
            for axis, words in zip("xyz", one.axes, strict=False):
                panel.set(**{f"{axis}label": words})
            if not together:
                panel.set_title(place_name(place))
            if equal:
                panel.set_aspect("equal")
            if one.color is not None:
                bar = figure.colorbar(marks, ax=panel, fraction=0.05, pad=0.02)
                bar.set_label(color)
                bar.outline.set_visible(False)
        if together:
            panels[0].legend(fontsize=8, markerscale=3)
    return figure


def _dots(panel: Any, one: Cloud, plain: str, label: str) -> Any:
    order = np.random.default_rng(0).permutation(len(one.points))  # nothing lies on top by rule
    shade: Mapping[str, Any] = (
        {"color": plain} if one.color is None else {"c": one.color[order], "cmap": "viridis"}
    )
    return panel.scatter(*one.points[order].T, s=4, lw=0, alpha=0.5, label=label or None, **shade)


def _panels(count: int, solid: bool) -> tuple[Any, list[Any]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = new_figure(WIDE if columns > 1 else 7.3, 0.4 + 3.6 * rows)
    options = {"projection": "3d"} if solid else {}
    return figure, [figure.add_subplot(rows, columns, i + 1, **options) for i in range(count)]
