"""Statistics in the order of the computation, and how a picture shows depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Component, Point
from headless.errors import HeadlessError
from headless.pages.figures import series_color

# One colour a kind of point in every picture of the laboratory.
COMPONENT_COLORS = {
    "embed": series_color(2),
    "post": series_color(0),
    "mid": series_color(5),
    "attn": series_color(7),
    "mlp": series_color(1),
    "norm1": series_color(4),
    "norm2": series_color(3),
    "norm_f": series_color(6),
}
COMPONENT_NAMES = {
    "embed": "input of the first block",
    "post": "stream after a block",
    "mid": "stream after attention",
    "attn": "added by attention",
    "mlp": "added by the MLP",
    "norm1": "first norm's output",
    "norm2": "second norm's output",
    "norm_f": "final norm's output",
}


def states_of(
    statistics: Mapping[Point, Statistics], component: Component
) -> list[tuple[int, Statistics]]:
    """A component's statistics by block, from the first block on."""
    found = [(p.block, s) for p, s in statistics.items() if p.component == component]
    return sorted(found, key=lambda item: item[0])


def stream_of(statistics: Mapping[Point, Statistics]) -> list[tuple[Point, Statistics]]:
    """The residual stream from the first block's input on, then the final norm's output.

    Raises:
        HeadlessError: no block's `post` was measured.
    """
    order = {"embed": 0, "post": 1, "norm_f": 2}
    found = [(p, s) for p, s in statistics.items() if p.component in order]
    if not any(point.component == "post" for point, _ in found):
        raise HeadlessError("no post point was measured: measure the stream after the blocks")
    return sorted(found, key=lambda item: (order[item[0].component], item[0].block))


def components_in(statistics: Mapping[Point, Statistics]) -> list[Component]:
    """The components within blocks that were measured, in the order of `COMPONENT_NAMES`."""
    here = {point.component for point in statistics}
    inside = [name for name in COMPONENT_NAMES if name not in ("embed", "norm_f")]
    return [name for name in inside if name in here]


def depth_colors(count: int) -> list[Any]:
    """From light (first) to dark (last), readable on light and dark paper."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.92, 0.08, max(count, 1))]


def show_depth(figure: Any, panel: Any, blocks: Sequence[int]) -> None:
    """A colour bar that says which shade is which block."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shades = ListedColormap(depth_colors(256))
    scale = Normalize(min(blocks), max(max(blocks), min(blocks) + 1))
    bar = figure.colorbar(ScalarMappable(scale, shades), ax=panel, fraction=0.05, pad=0.02)
    bar.set_label("block")
    bar.outline.set_visible(False)
    bar.ax.yaxis.get_major_locator().set_params(integer=True)


def panels_of(
    count: int, columns: int = 3, height: float = 2.8, width: float = 11.2
) -> tuple[Any, list[Any]]:
    """A figure with that many panels in rows; inside `drawing_style`."""
    from headless.pages.figures import new_figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(width if columns > 1 else 7.3, 0.3 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, list(panels[:count])


def write_title(point: Point) -> str:
    """A point for a panel's heading: "post, block 7"."""
    if point.component in ("embed", "norm_f"):
        return COMPONENT_NAMES[point.component]
    return f"{point.component}, block {point.block}"
