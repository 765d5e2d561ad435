"""Pictures of how activations are distributed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headless.analysis.activations_measure import QUANTILES, course, views_of
from headless.analysis.by_depth import (
    COMPONENT_NAMES,
    components_in,
    depth_colors,
    panels_of,
    show_depth,
    states_of,
    write_title,
)
from headless.analysis.states.accumulators import REST, Statistics, histogram_edges
from headless.analysis.states.capture import Point
from headless.geometry.gaussianity import log_density
from headless.pages.figures import INK, MUTED, drawing_style, series_color


def _shown(points: Sequence[Point], count: int = 6) -> list[Point]:
    places = np.unique(np.linspace(0, len(points) - 1, min(count, len(points))).astype(int))
    return [points[i] for i in places]


def draw_histograms(statistics: Mapping[Point, Statistics], stream: Sequence[Point]) -> Any:
    """Densities, logarithmic, beside a Gaussian and a logistic one."""
    shown = _shown(stream)
    with drawing_style():
        figure, panels = panels_of(len(shown))
        grid = np.linspace(-12, 12, 481)
        z = torch.from_numpy(grid)
        logistic = math.sqrt(3) / math.pi
        for panel, point in zip(panels, shown, strict=True):
            s = statistics[point]
            for index, (name, values) in enumerate(list(views_of(s, 0).items())[:2]):
                if name == "pooled":
                    x, density = _pooled_density(s)
                else:
                    counts, edges = np.histogram(values.numpy(), np.linspace(-12, 12, 121))
                    x, density = (edges[1:] + edges[:-1]) / 2, counts / len(values) / np.diff(edges)
                label = {"pooled": "pooled", "dimensions": "each dimension by itself"}[name]
                panel.plot(
                    x,
                    np.where(density > 0, density, np.nan),
                    color=series_color(index),
                    label=label,
                )
            panel.plot(grid, log_density("gaussian", z).exp(), "--", color=INK, lw=0.9)
            heavier = log_density("logistic", z / logistic).exp() / logistic
            panel.plot(grid, heavier, ":", color=MUTED, lw=1.1)
            panel.set(yscale="log", ylim=(1e-7, 30), xlim=(-12, 12), title=write_title(point))
            panel.set_xlabel("standard deviations")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        panels[0].set_ylabel("density")
        _plain_log(panels)
    return figure


def _plain_log(panels: Sequence[Any]) -> None:
    """Powers of ten without mathematics, which stays unset in text."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for panel in panels:
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        panel.yaxis.set_minor_formatter(NullFormatter())


def _pooled_density(s: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """From the histogram of all entries, in bins of a tenth of a standard deviation."""
    total = s.powers_G4D[REST].mean(dim=1) / s.count_G[REST]
    mean, std = float(total[0]), math.sqrt(float(total[1] - total[0] ** 2))
    edges = (histogram_edges() - mean) / std
    middles, counts = (edges[1:] + edges[:-1]) / 2, s.histogram.numpy()
    wanted = np.linspace(-12, 12, 121)
    binned, _ = np.histogram(middles, wanted, weights=counts)
    return (wanted[1:] + wanted[:-1]) / 2, binned / counts.sum() / np.diff(wanted)


def draw_kurtosis(statistics: Mapping[Point, Statistics], scalars: Mapping[str, float]) -> Any:
    """Excess kurtosis by block, a panel a component."""
    names = {
        "pooled": "pooled",
        "median_dimension": "median dimension",
        "directions": "random directions (null)",
    }
    shown = components_in(statistics)
    with drawing_style():
        figure, panels = panels_of(len(shown))
        for panel, component in zip(panels, shown, strict=True):
            points = [Point(component, block) for block, _ in states_of(statistics, component)]
            for index, (name, label) in enumerate(names.items()):
                x, y = course(scalars, points, f"kurtosis/{name}")
                color = MUTED if name == "directions" else series_color(index)
                panel.plot(x, y, color=color, marker="o", markersize=3, label=label)
            low, high = panel.get_ylim()
            if max(-low, high) > 10:
                panel.set_yscale("symlog", linthresh=1.0)
            else:
                panel.yaxis.get_major_locator().set_params(nbins=5)
            panel.axhline(0, color=INK, lw=0.7)
            panel.set(title=COMPONENT_NAMES[component], xlabel="block")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.yaxis.set_major_formatter(_number)
        panels[0].set_ylabel("excess kurtosis")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _number(value: float, _: Any = None) -> str:
    from headless.pages.numbers import compact

    return compact(value).replace("-", "−")


def draw_quantiles(
    statistics: Mapping[Point, Statistics],
    arrays: Mapping[str, np.ndarray],
    stream: Sequence[Point],
) -> Any:
    """Quantiles against a Gaussian's."""
    expected = torch.special.ndtri(torch.from_numpy(QUANTILES)).numpy()
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.6)
        titles = {
            "dimensions": "each dimension by itself",
            "directions": "random directions (null)",
        }
        posts = [point for point in stream if point.component == "post"]
        for panel, (name, title) in zip(panels, titles.items(), strict=True):
            for point, color in zip(posts, depth_colors(len(posts)), strict=True):
                panel.plot(expected, arrays[f"{point.name}/{name}"], color=color, lw=1.0)
            panel.plot(expected, expected, "--", color=INK, lw=0.9)
            panel.set(title=title, xlabel="quantile of a Gaussian", ylim=(-8, 8))
        panels[0].set_ylabel("quantile, standard deviations")
        show_depth(figure, panels[-1], [point.block for point in posts])
    return figure
