"""Pictures of embeddings against frequency."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headless.analysis.frequency_measure import groups_of
from headless.pages.figures import MUTED, compact_ticks, drawing_style, new_figure, series_color

MEASURES = {"norm": "norm", "cos_mean": "cosine with the mean", "pc1": "first component"}


def draw_zipf(counts: np.ndarray, slope: float) -> Any:
    """Counts by rank, and the fitted line."""
    values = np.sort(counts[counts > 0])[::-1]
    x = np.arange(1, len(values) + 1)
    with drawing_style():
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        panel.plot(x, values, color=series_color(0), label="counts")
        anchor = min(len(values), 100)
        line = values[anchor - 1] * (x / anchor) ** slope
        panel.plot(x, line, color=MUTED, linestyle="--", linewidth=1, label=f"rank^{slope:.2f}")
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="occurrences")
        panel.set_ylim(bottom=0.7)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def draw_tokens(
    values: Mapping[str, np.ndarray], counts: np.ndarray, rhos: Mapping[str, float]
) -> Any:
    """One panel a measure; tokens that never occur stand at a third of an occurrence."""
    names = {**MEASURES, "dot_state": "times mean state"}
    x = np.where(counts > 0, counts, 1 / 3)
    jitter = np.random.default_rng(0).uniform(-0.12, 0.12, len(x))
    shown = np.random.default_rng(0).permutation(len(x))[:6000]
    with drawing_style():
        figure = new_figure(11.2, 3.2)
        panels = figure.subplots(1, len(values), squeeze=False)[0]
        for panel, (key, value) in zip(panels, values.items(), strict=True):
            panel.scatter(
                (x * np.exp(jitter))[shown], value[shown], s=3, alpha=0.35, linewidths=0,
                color=series_color(0),
            )  # fmt: skip
            bins = [part for part in groups_of(counts)[1:] if len(part)]
            panel.plot(
                [np.exp(np.log(x[part]).mean()) for part in bins],
                [np.median(value[part]) for part in bins],
                color=series_color(1), marker="o", markersize=3,
                label="median by frequency" if panel is panels[0] else None,
            )  # fmt: skip
            compact_ticks(panel.xaxis, log=True)
            panel.set(xlabel="occurrences", title=f"{names[key]}: ρ {rhos[key]:+.2f}")
        figure.legend(loc="outside upper left")
    return figure


def draw_spectra(lines: list[np.ndarray], random: np.ndarray) -> Any:
    """Singular values of groups of tokens, from rare to frequent, and of a random group."""
    import matplotlib

    shades = matplotlib.colormaps["Blues"](np.linspace(0.3, 1.0, len(lines)))
    with drawing_style():
        figure = new_figure(5.6, 3.6)
        panel = figure.subplots()
        for index, (values, shade) in enumerate(zip(lines, shades, strict=True)):
            values = values[values > 1e-6 * values[0]]
            label = {0: "rarest tenth", len(lines) - 1: "most frequent tenth"}.get(index)
            panel.plot(
                np.arange(1, len(values) + 1), values, color=shade, linewidth=1.1, label=label
            )
        random = random[random > 1e-6 * random[0]]
        panel.plot(
            np.arange(1, len(random) + 1), random, color=MUTED, linestyle="--", label="random"
        )
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="singular value / √tokens")
        figure.legend(loc="outside upper left", ncols=3)
    return figure
