"""Points in the plane: one panel a place, coloured by a number."""

from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import kind_name, panels_of
from headless.analysis.record import Cloud, Figure, Finding
from headless.pages.figures import drawing_style, series_color


def cloud(
    name: str,
    caption: str,
    of: str,
    *,
    color: str = "",
    wide: bool = True,
    film: tuple[str, str] | None = None,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Cloud`s; `color` names the colour bar."""
    return Figure(name, caption, partial(_draw, of=of, color=color), (of,), wide, film)


def _draw(finding: Finding, *, of: str, color: str) -> Any:
    clouds = {p: c for p, c in finding.payloads[of].items() if isinstance(c, Cloud)}
    with drawing_style():
        figure, panels = panels_of(len(clouds), columns=3, height=3.6)
        for index, (panel, (place, one)) in enumerate(zip(panels, clouds.items(), strict=True)):
            # Nothing lies on top by rule.
            order = np.random.default_rng(0).permutation(len(one.points))
            shade = series_color(index) if one.color is None else one.color[order]
            marks = (
                panel.scatter(
                    *one.points[order, :2].T, s=4, lw=0, alpha=0.6, c=shade, cmap="viridis"
                )
                if one.color is not None
                else panel.scatter(*one.points[order, :2].T, s=4, lw=0, alpha=0.6, color=shade)
            )
            panel.set_title(kind_name(str(place)))
            for axis, words in zip("xy", one.axes, strict=False):
                panel.set(**{f"{axis}label": words})
            if one.color is not None:
                bar = figure.colorbar(marks, ax=panel, fraction=0.05, pad=0.02)
                bar.set_label(color)
                bar.outline.set_visible(False)
    return figure
