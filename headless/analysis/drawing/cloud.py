"""Points in the plane or in space: a panel a place, coloured by a number, or by kind and depth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing.grid import WIDE, log_axes, place_name
from headless.analysis.record import Cloud, Figure, Finding, Place
from headless.pages.figures import INK, MUTED, drawing_style, new_figure, series_color

# The colours of Ning and Rangaraju 2025: attention blue, MLP red, embedding green, final norm
# yellow; dark is early.
MAPS = {
    "embed": "Greens", "norm1": "Oranges", "attn": "Blues", "mid": "Purples", "norm2": "RdPu",
    "mlp": "Reds", "post": "Greys", "norm_f": "YlOrBr",
}  # fmt: skip


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
    together: bool = False,
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
        together: one panel for all, each in a colour of its own.
        wide: needs the page's whole width.
        film: see `Figure`.
        seen: likewise.
    """
    look: dict[str, Any] = {
        "columns": columns,
        "log": log,
        "equal": equal,
        "joined": joined,
        "together": together,
    }
    return Figure(
        name, caption, partial(_draw, of=of, color=color, **look), (of,), wide, film, seen
    )


def pairs_of(
    z_NK: np.ndarray, shares_K: Any, pairs: Sequence[tuple[int, int]], **look: Any
) -> dict[Place, Cloud]:
    """Clouds of pairs of principal components, named by their shares; `look` is of each cloud."""
    named = [f"{k} ({share:.0%})" for k, share in enumerate(shares_K.tolist(), 1)]
    return {Place(f"{named[a]} and {named[b]}"): Cloud(z_NK[:, [a, b]], **look) for a, b in pairs}


def _draw(
    finding: Finding,
    *,
    of: str,
    color: str,
    columns: int,
    joined: bool,
    together: bool,
    **axes: Any,
) -> Any:
    clouds = {p: c for p, c in finding.payloads[of].items() if isinstance(c, Cloud)}
    solid = any(one.points.shape[1] > 2 for one in clouds.values())
    with drawing_style():
        marks: list[Any] = []
        figure, panels = _panels(1 if together else len(clouds), columns, solid)
        for index, (place, one) in enumerate(clouds.items()):
            panel = panels[0] if together else panels[index]
            if joined:
                panel.plot(*one.points.T, color=MUTED, lw=0.4, alpha=0.4)
            shade, label = series_color(index * together), place_name(place) * together
            marks.append(_dots(panel, one, shade, label))
            _lines(panel, one, series_color(index) if together else INK, **axes)
            if not together:
                panel.set_title(place_name(place))
            if columns > 3:
                panel.set(xticks=[], yticks=[])
        if shaded := [dots for dots in marks if color and dots.get_array() is not None]:
            low, high = zip(*(dots.get_clim() for dots in shaded), strict=True)
            for dots in shaded:
                dots.set_clim(min(low), max(high))
            bar = figure.colorbar(shaded[0], ax=panels, fraction=0.03, pad=0.02)
            bar.set_label(color)
            bar.outline.set_visible(False)
        if together:
            panels[0].legend(fontsize=8, markerscale=3)
        _legend(figure, [kind for one in clouds.values() for kind in one.kinds])
    return figure


def _lines(panel: Any, one: Cloud, color: str, *, log: str, equal: bool) -> None:
    for line, style in zip(one.lines, ("-", "--", ":"), strict=False):
        panel.plot(*line.T, style, color=color, lw=1.4)
    if one.lines and not log:
        panel.plot(*([0.0] for _ in one.points[0]), "+", color=INK, ms=11, mew=1.8)
    for axis, words in zip("xyz", one.axes, strict=False):
        panel.set(**{f"{axis}label": words})
    log_axes(panel, log)
    if equal:
        panel.set_aspect("equal")


def _dots(panel: Any, one: Cloud, plain: str, label: str) -> Any:
    order = np.random.default_rng(0).permutation(len(one.points))  # nothing lies on top by rule
    shade = {"color": plain} if one.color is None else {"c": _shades(one, one.color)[order]}
    return panel.scatter(*one.points[order].T, s=5, lw=0, alpha=0.6, label=label or None, **shade)


def _shades(one: Cloud, color_N: np.ndarray) -> np.ndarray:
    """The numbers themselves, or for kinds colours of their own, dark for small numbers."""
    from matplotlib import colormaps

    late_N = np.clip(color_N, 0, None) / max(1, color_N.max())
    shades = [colormaps[MAPS[k]](0.95 - 0.55 * x) for k, x in zip(one.kinds, late_N, strict=False)]
    return np.array(shades) if one.kinds else color_N


def _panels(count: int, columns: int, solid: bool) -> tuple[Any, list[Any]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = new_figure(WIDE if columns > 1 else 7.3, 0.4 + (1.9 if columns > 3 else 3.6) * rows)
    options = {"projection": "3d"} if solid else {}
    return figure, [figure.add_subplot(rows, columns, i + 1, **options) for i in range(count)]


def _legend(figure: Any, kinds: Sequence[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", label=kind, color=colormaps[MAPS[kind]](0.75))
        for kind in dict.fromkeys(kinds)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
