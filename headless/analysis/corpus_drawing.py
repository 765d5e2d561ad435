"""Pictures of a corpus' spectra."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headless.analysis.corpus_spectra import VARIANTS
from headless.pages.figures import MUTED, compact_ticks, drawing_style, new_figure, series_color


def draw_spectra(found: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Values by rank, text and shuffled text."""
    names = {"covariance": "eigenvalue", "correlation": "eigenvalue", "pmi": "singular value"}
    with drawing_style():
        figure = new_figure(11.2, 3.4)
        for panel, (variant, name) in zip(figure.subplots(1, 3), names.items(), strict=True):
            for kind, colour, label in (
                ("null", MUTED, "shuffled"),
                ("real", series_color(0), "text"),
            ):
                values = found[kind][variant]
                values = values[values > 1e-9 * values[0]]
                panel.plot(np.arange(1, len(values) + 1), values, color=colour, label=label)
            compact_ticks(panel.xaxis, log=True)
            compact_ticks(panel.yaxis, log=True)
            panel.set(title=variant.replace("pmi", "pointwise mutual information"))
            panel.set(xlabel="rank", ylabel=name)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def draw_excess(found: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Text over shuffled text, by rank."""
    with drawing_style():
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        for index, variant in enumerate(VARIANTS):
            real, null = found["real"][variant], found["null"][variant]
            shared = round(0.8 * min(len(real), len(null)))
            ratio = real[:shared] / np.maximum(null[:shared], 1e-12)
            x = np.arange(1, shared + 1)
            panel.plot(x, ratio, color=series_color(index), label=variant)
        panel.axhline(1, color=MUTED, linewidth=0.8)
        compact_ticks(panel.xaxis, log=True)
        panel.set(xlabel="rank", ylabel="text over shuffled text")
        figure.legend(loc="outside upper left", ncols=3)
    return figure


def draw_compare(
    found: Mapping[str, Mapping[str, np.ndarray]], others: Mapping[str, np.ndarray]
) -> Any:
    """The text's spectrum beside others, each relative to its largest value."""
    lines = {"text": found["real"]["covariance"], **others}
    with drawing_style():
        figure = new_figure(5.6, 3.6)
        panel = figure.subplots()
        for index, (name, values) in enumerate(lines.items()):
            values = values[values > 1e-9 * values[0]] / values[0]
            x = np.arange(1, len(values) + 1)
            panel.plot(x, values, color=series_color(index), label=name)
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="rank", ylabel="value over the largest")
        figure.legend(loc="outside upper left", ncols=3)
    return figure
