"""Pictures of gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.gradients_measure import Entries, Place, Z
from headless.pages.figures import MUTED, drawing_style, new_figure, series_color


def draw_histograms(single: Mapping[Place, Entries], roles: Sequence[str], depth: int) -> Any:
    """Standardised entries on a logarithmic scale, a panel a kind of matrix."""
    import matplotlib

    middle = (Z[1:] + Z[:-1]) / 2
    width = Z[1] - Z[0]
    columns = min(4, len(roles))
    rows = -(-len(roles) // columns)
    shades = matplotlib.colormaps["Blues"](np.linspace(1.0, 0.4, max(depth, 2)))
    with drawing_style():
        figure = new_figure(11.2, 0.4 + 2.3 * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for panel, role in zip(panels.ravel(), roles, strict=False):
            for (block, name), e in single.items():
                if name == role:
                    density = e.histogram / max(e.histogram.sum(), 1) / width
                    shown = np.where(density > 0, np.log10(np.maximum(density, 1e-12)), np.nan)
                    panel.plot(middle, shown, color=shades[block], linewidth=0.9)
            gaussian = (-(middle**2) / 2 - 0.5 * np.log(2 * np.pi)) / np.log(10)
            panel.plot(middle, gaussian, color=MUTED, linestyle="--", linewidth=1.2)
            panel.set_title(role)
            panel.set_ylim(-6.5, 1.2)
        for panel in panels.ravel()[len(roles) :]:
            panel.set_visible(False)
        for panel in panels[-1]:
            panel.set_xlabel("standard deviations")
        for panel in panels[:, 0]:
            panel.set_ylabel("log10 density")
    return figure


def draw_kurtosis(grid: np.ndarray, roles: Sequence[str]) -> Any:
    """Excess kurtosis by block, a line a kind of matrix."""
    with drawing_style():
        figure = new_figure(5.6, 3.2)
        panel = figure.subplots()
        for index, (role, values) in enumerate(zip(roles, grid, strict=True)):
            panel.plot(
                np.log10(1 + np.maximum(values, 0)), marker="o", markersize=3.5,
                color=series_color(index), label=role,
            )  # fmt: skip
        ticks = [0, 1, 10, 100, 1000, 10000]
        top = np.log10(1 + max(float(np.nanmax(grid)), 1)) * 1.05
        panel.set_yticks([np.log10(1 + t) for t in ticks], [f"{t:,}" for t in ticks])
        panel.set_ylim(0, top)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="block", ylabel="excess kurtosis")
        figure.legend(loc="outside upper left", ncols=len(roles))
    return figure
