"""Points in the plane or in space: a panel a place, coloured by a number, or by kind and depth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import WIDE, log_axes, place_name
from headless.analysis.record import Cloud, Figure, Finding
from headless.pages.figures import INK, MUTED, drawing_style, new_figure, series_color

# The colours of Ning and Rangaraju 2025: attention blue, MLP red, embedding green, final norm
# yellow; dark is early.
MAPS = {"embed": "Greens", "attn": "Blues", "mlp": "Reds", "post": "Greys", "norm_f": "YlOrBr"}


def cloud(
    name: str,
    caption: str,
    of: str,
    *,
    color: str = "",
    columns: int = 3,
    log: str = "",
    equal: bool = False,
    joined: bool = False,
    wide: bool = True,
    film: tuple[str, str] | None = None,
    seen: Callable[[Finding, Finding], Finding] = Figure.seen,
) -> Figure:
    """A figure of the payload `of`, whose entries are `Cloud`s.

    Args:
        name: of its file.
        caption: what is drawn.
        of: the payload; clouds whose points have three coordinates are drawn in space.
        color: name of the colour bar; those with `kinds` have a legend.
        columns: of panels; more than 3 are small and without ticks.
        log: axes that are logarithmic.
        equal: one scale for both axes.
        joined: a thin line through the points in their order.
        wide: needs the page's whole width.
        film: see `Figure`.
        seen: likewise.
    """
    look: dict[str, Any] = {"columns": columns, "log": log, "equal": equal, "joined": joined}
    return Figure(
        name, caption, partial(_draw, of=of, color=color, **look), (of,), wide, film, seen
    )


def _draw(
    finding: Finding, *, of: str, color: str, columns: int, joined: bool, log: str, equal: bool
) -> Any:
    clouds = {p: c for p, c in finding.payloads[of].items() if isinstance(c, Cloud)}
    solid = any(one.points.shape[1] > 2 for one in clouds.values())
    width, rows = min(columns, len(clouds)), -(-len(clouds) // columns)
    with drawing_style():
        size = WIDE if width > 1 else 7.3, 0.4 + (1.9 if columns > 3 else 3.6) * rows
        figure = new_figure(*size)
        marks: list[Any] = []
        for index, (place, one) in enumerate(clouds.items(), 1):
            options = {"projection": "3d"} if solid else {}
            panel = figure.add_subplot(rows, width, index, title=place_name(place), **options)
            if joined:
                panel.plot(*one.points.T, color=MUTED, lw=0.4, alpha=0.4)
            marks.append(_dots(panel, one))
            for line, style in zip(one.lines, ("-", "--", ":"), strict=False):
                panel.plot(*line.T, style, color=INK, lw=1.4)
            if one.lines and not log:
                panel.plot(*([0.0] for _ in one.points[0]), "+", color=INK, ms=11, mew=1.8)
            panel.set(**dict(zip(("xlabel", "ylabel", "zlabel"), one.axes, strict=False)))
            log_axes(panel, log)
            if equal:
                panel.set_aspect("equal")
            if columns > 3:
                panel.set(xticks=[], yticks=[])
        if shaded := [dots for dots in marks if color and dots.get_array() is not None]:
            low, high = zip(*(dots.get_clim() for dots in shaded), strict=True)
            for dots in shaded:
                dots.set_clim(min(low), max(high))
            bar = figure.colorbar(shaded[0], ax=figure.axes, fraction=0.03, pad=0.02, label=color)
            bar.outline.set_visible(False)
        _legend(figure, list(dict.fromkeys(kind for one in clouds.values() for kind in one.kinds)))
    return figure


def _dots(panel: Any, one: Cloud) -> Any:
    """Coloured by numbers, or of kinds in colours of their own, dark for small numbers."""
    from matplotlib import colormaps

    order = np.random.default_rng(0).permutation(len(one.points))  # nothing lies on top by rule
    shade: dict[str, Any] = {"color": series_color(0)}
    if one.color is not None:
        shade = {"c": one.color[order]}
    if one.kinds and one.color is not None:
        late_N = np.clip(one.color, 0, None) / max(1, one.color.max())
        both = zip(one.kinds, late_N, strict=True)
        shade = {"c": np.array([colormaps[MAPS[k]](0.95 - 0.55 * x) for k, x in both])[order]}
    return panel.scatter(*one.points[order].T, s=5, lw=0, alpha=0.6, **shade)


def _legend(figure: Any, kinds: list[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", label=kind, color=colormaps[MAPS[kind]](0.75))
        for kind in kinds
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
