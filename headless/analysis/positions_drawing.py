"""Paths of positions: pairs of components, cosines and norms, shares of the variance."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from headless.pages.figures import MUTED, drawing_style, new_figure, series_color

PARTS = ("position", "context", "rest")


def draw_pairs(z_TK: np.ndarray, shares_K: np.ndarray) -> Any:
    """All pairs of components, coloured by position, light where the path begins."""
    pairs = list(combinations(range(z_TK.shape[1]), 2))
    columns = min(5, len(pairs))
    rows = -(-len(pairs) // columns)
    with drawing_style():
        figure = new_figure(11.2, 0.5 + 1.9 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (a, b) in zip(panels, pairs, strict=False):
            panel.plot(z_TK[:, a], z_TK[:, b], color=MUTED, linewidth=0.3, alpha=0.25)
            dots = panel.scatter(
                z_TK[:, a], z_TK[:, b], c=np.arange(len(z_TK)), s=5, cmap="winter", linewidths=0
            )
            panel.set_title(f"{a + 1} ({shares_K[a]:.0%}) and {b + 1} ({shares_K[b]:.0%})")
            panel.set(xticks=[], yticks=[])
        for panel in panels[len(pairs) :]:
            panel.set_visible(False)
        figure.colorbar(dots, ax=list(panels), label="position", fraction=0.02)
    return figure


def draw_helix(
    cosine_TT: np.ndarray, norm_T: np.ndarray, score: float, null: np.ndarray, shuffled: float
) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 3.3)
        left, middle, right = figure.subplots(1, 3)
        image = left.imshow(cosine_TT, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        left.grid(visible=False)
        left.set(xlabel="position", ylabel="position")
        figure.colorbar(image, ax=left, label="cosine")
        middle.plot(norm_T, color=series_color(0))
        middle.set(xlabel="position", ylabel="norm")
        middle.set_ylim(bottom=0)
        right.hist(null, bins=np.linspace(0, 1, 26), color=MUTED, alpha=0.6, label="random walks")
        right.axvline(shuffled, color=series_color(1), linestyle="--", label="shuffled order")
        right.axvline(score, color=series_color(0), label="this model")
        right.set(xlabel="helix score", ylabel="walks", xlim=(0, 1))
        right.legend()
    return figure


def draw_shares(shares: Mapping[int, Mapping[str, float]]) -> Any:
    with drawing_style():
        figure = new_figure(5.6, 3.2)
        panel = figure.subplots()
        blocks = list(shares)
        for index, part in enumerate(PARTS):
            values = [shares[b][part] for b in blocks]
            panel.plot(
                blocks, values, marker="o", markersize=4, color=series_color(index), label=part
            )
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="block", ylabel="share of the variance")
        panel.set_ylim(min(-0.02, panel.get_ylim()[0]), 1.02)
        figure.legend(loc="outside upper left", ncols=3)
    return figure
