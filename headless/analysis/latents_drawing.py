"""Scatters of latent states, coloured by component and shaded by depth, or by position."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.analysis.states.capture import Component, Point
from headless.pages.figures import drawing_style, new_figure

# The paper's colours: attention blue, MLP red, embedding green, final norm yellow; dark is early.
MAPS: dict[Component, str] = {
    "embed": "Greens", "norm1": "Oranges", "attn": "Blues", "mid": "Purples", "norm2": "RdPu",
    "mlp": "Reds", "post": "Greys", "norm_f": "YlOrBr",
}  # fmt: skip


def axis(k: int, shares_K: Any) -> str:
    return f"component {k} ({float(shares_K[k - 1]):.0%})"


def draw(
    panels: Any, points: Sequence[Point], index_N: np.ndarray, titles: Sequence[str] = ()
) -> Any:
    """Scatters coloured by component, shaded by depth."""
    import matplotlib
    from matplotlib.lines import Line2D

    depth = max(1, max(p.block for p in points))

    def colour(point: Point) -> Any:
        early = 1 - min(max(point.block, 0) / depth, 1)
        return matplotlib.colormaps[MAPS[point.component]](0.4 + 0.55 * early)

    with drawing_style():
        figure = new_figure(11.2 if len(panels) > 1 else 5.6, 3.9)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        order = np.random.default_rng(0).permutation(len(index_N))  # nothing lies on top by rule
        shades = np.array([colour(p) for p in points])[index_N[order]]
        for panel, (z, (a, b), names) in zip(axes, panels, strict=True):
            panel.scatter(z[order, a], z[order, b], s=5, c=shades, alpha=0.75, linewidths=0)
            panel.set(xlabel=names[0], ylabel=names[1])
        for panel, title in zip(axes, titles, strict=False):
            panel.set_title(title)
        names = list(dict.fromkeys(p.component for p in points))
        handles = [
            Line2D([], [], marker="o", linestyle="", markersize=5, label=name,
                   color=matplotlib.colormaps[MAPS[name]](0.75))
            for name in names
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper left", ncols=len(names))
    return figure


def draw_positions(panels: Any, position_N: np.ndarray) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 3.6)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (z, (a, b), names) in zip(axes, panels, strict=True):
            dots = panel.scatter(
                z[:, a], z[:, b], s=5, c=position_N, cmap="winter", alpha=0.75, linewidths=0
            )
            panel.set(xlabel=names[0], ylabel=names[1])
        figure.colorbar(dots, ax=axes, label="position", fraction=0.03)
    return figure
