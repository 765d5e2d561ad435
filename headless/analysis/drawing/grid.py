"""Panels, colours and legends that every kind of figure shares."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.analysis.record import Place
from headless.pages.figures import INK, compact_ticks, new_figure, series_color
from headless.pages.numbers import compact

WIDE, NARROW = 11.2, 7.3  # inches: the page's width, and that of its text
DASHED = (0, (3.2, 2.2))  # of null models
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
# One colour a kind of place in every figure, and its name where that is no word.
COLORS = {role: series_color(index) for index, role in enumerate(ROLES)} | {
    "qk": series_color(0),
    "ov": series_color(1),
    "embed": series_color(2),
    "post": series_color(0),
    "mid": series_color(5),
    "attn": series_color(7),
    "mlp": series_color(1),
    "norm1": series_color(4),
    "norm2": series_color(3),
    "norm_f": series_color(6),
}
NAMES = {
    "embed": "input of the first block",
    "post": "stream after a block",
    "mid": "stream after attention",
    "attn": "added by attention",
    "mlp": "added by the MLP",
    "norm1": "first norm's output",
    "norm2": "second norm's output",
    "norm_f": "final norm's output",
    "head": "LM head",
    "hidden": "last states",
}


def kind_color(kind: str) -> str:
    """Of a kind of place; "overlap/q" has that of "q"."""
    return COLORS.get(kind.rpartition("/")[2], INK)


def kind_name(kind: str) -> str:
    """In words."""
    name = kind.rpartition("/")[2]
    return NAMES.get(name, name)


def place_name(place: Place) -> str:
    """For a panel of its own: "post, block 7"."""
    return kind_name(place.kind) if place.block is None else f"{place.kind}, block {place.block}"


def panels_of(count: int, columns: int = 4, height: float = 2.8) -> tuple[Any, list[Any]]:
    """A figure with so many panels in rows, as wide as the page for more than one."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(WIDE if columns > 1 else NARROW, 0.4 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, list(panels[:count])


def label_edges(panels: Sequence[Any], x: str, y: str, columns: int = 4) -> None:
    """Name the x axis below every column, the y axis at the left of every row."""
    columns = min(columns, len(panels))
    for index, panel in enumerate(panels):
        if index + columns >= len(panels):
            panel.set_xlabel(x)
        if index % columns == 0:
            panel.set_ylabel(y)


def log_axes(panel: Any, axes: str) -> None:
    """Make the axes that are named ("x", "y", "xy") logarithmic.

    "s" is y with both signs, linear below 1, and only where something is above 10.
    """
    for axis in axes.replace("s", ""):
        compact_ticks(getattr(panel, f"{axis}axis"), log=True)
        low, high = getattr(panel, f"{axis}axis").get_data_interval()
        if 0 < high < 1.001 * low:  # all alike but for rounding
            panel.set(**{f"{axis}lim": (low / 1.1, high * 1.1)})
    if "s" in axes:
        low, high = panel.get_ylim()
        if max(-low, high) > 10:
            panel.set_yscale("symlog", linthresh=1.0)
            panel.set_ylim(min(low, 0.0), max(high, 0.0))
        panel.yaxis.set_major_formatter(lambda value, _: compact(value).replace("-", "−"))


def depth_colors(count: int) -> list[Any]:
    """From light (first) to dark (last), readable on light and dark paper."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.92, 0.08, max(count, 1))]


def depth_bar(figure: Any, panels: Any, blocks: Sequence[int], label: str = "block") -> None:
    """A colour bar that says which shade is which block."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shades = ListedColormap(depth_colors(256))
    scale = Normalize(min(blocks), max(max(blocks), min(blocks) + 1))
    bar = figure.colorbar(ScalarMappable(scale, shades), ax=panels, fraction=0.05, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
