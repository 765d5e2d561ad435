"""Figures of the weights' values: histograms, quantiles and a map of their kurtosis."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from headless.analysis.weights_drawing import (
    NULL_DASH,
    bottom_labels,
    legend,
    new_figure,
    panels_for,
    role_color,
    role_legend,
)
from headless.analysis.weights_measure import SEED, roles_in
from headless.analysis.weights_shapes import EDGES, QUANTILES, SAMPLE, Values, gaussian_shares
from headless.geometry.gaussianity import log_density
from headless.pages.figures import INK, MUTED, drawing_style, series_color


def draw_histograms(values: Sequence[Values]) -> Any:
    """One panel a role: the middle block's entries."""
    roles = roles_in(values)
    middle = (1 + max(v.block for v in values)) // 2
    z = torch.linspace(-8, 8, 321, dtype=torch.float64)
    with drawing_style():
        figure, panels = panels_for([f"{role}, block {middle}" for role in roles], sharey=True)
        for panel, role in zip(panels, roles, strict=True):
            v = next(v for v in values if v.role == role and v.block == middle)
            panel.stairs(v.density_K, EDGES, fill=True, color=role_color(role), alpha=0.45)
            panel.plot(z.numpy(), log_density("gaussian", z).exp().numpy(), color=INK, linewidth=1)
            fit = v.fits["student_t"]
            if math.isfinite(fit.scale):
                density = log_density("student_t", (z - fit.location) / fit.scale, fit.nu).exp()
                y = (density / fit.scale).numpy()
                panel.plot(z.numpy(), y, color=INK, linestyle=NULL_DASH, linewidth=1)
            note = f"kurtosis {v.moments.excess_kurtosis:.2f}\nν {min(fit.nu, 999):.0f}"
            panel.text(0.03, 0.97, note, transform=panel.transAxes, va="top", color=MUTED)
            panel.set_yscale("log")
            panel.set_ylim(1e-6, 2)
            panel.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        bottom_labels(panels, "standard deviations", "density")
        legend(
            figure,
            [
                ("the matrix", role_color(roles[0]), "solid", 5.0),
                ("Gaussian", INK, "solid", 1.0),
                ("Student-t, fitted", INK, NULL_DASH, 1.0),
            ],
        )
    return figure


def draw_quantiles(values: Sequence[Values], kurtosis: dict[str, np.ndarray]) -> Any:
    """Quantiles of a middle block's matrices, and a map of all kurtoses."""
    middle = (1 + max(v.block for v in values)) // 2
    z = np.linspace(-4, 4, QUANTILES)
    with drawing_style():
        figure = new_figure(11.2, 3.6)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        draw = torch.Generator().manual_seed(SEED)
        samples = torch.randn(20, SAMPLE, generator=draw, dtype=torch.float64).numpy()
        null = np.quantile(samples, gaussian_shares(), axis=1)
        low, high = null.min(axis=1), null.max(axis=1)
        left.fill_between(z, low, high, color=MUTED, alpha=0.3, linewidth=0)
        left.plot(z, z, color=MUTED, linewidth=0.8)
        for v in (v for v in values if v.block == middle):
            left.plot(z, v.quantiles_Q, color=role_color(v.role), linewidth=1.2)
        left.set_ylim(-9, 9)
        left.set_title(f"quantiles, block {middle}")
        left.set_xlabel("of a Gaussian")
        left.set_ylabel("of the entries")
        _kurtosis_map(right, kurtosis)
        role_legend(figure, list(kurtosis))
    return figure


def _kurtosis_map(panel: Any, kurtosis: dict[str, np.ndarray]) -> None:
    """Roles by blocks, darker for heavier tails; numbers where there is room."""
    from matplotlib.colors import LinearSegmentedColormap

    table = np.stack(list(kurtosis.values()))
    shade = LinearSegmentedColormap.from_list("shade", ["#ffffff00", series_color(0)])
    logs = np.log10(1 + np.clip(np.nan_to_num(table), 0, None))
    rows, columns = table.shape
    x, y = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    panel.pcolormesh(x, y, logs, cmap=shade, vmin=0, vmax=max(1.0, float(logs.max())), alpha=0.85)
    if columns <= 14:
        for (row, column), value in np.ndenumerate(table):
            panel.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8)
    panel.set_yticks(range(rows), list(kurtosis))
    panel.invert_yaxis()
    panel.grid(visible=False)
    panel.set_xlabel("block")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_title(f"excess kurtosis, {np.nanmin(table):.2f} to {np.nanmax(table):.2f}")
