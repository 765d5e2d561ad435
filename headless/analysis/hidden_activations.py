"""The MLP's neurons (A8): how their activations are distributed, how sparse they are, which are
the most active.

Shapes: U neurons of a block, B blocks.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.by_depth import depth_colors, panels_of, show_depth, states_of
from headless.analysis.finding import Finding, Picture
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics, histogram_edges
from headless.analysis.states.capture import Point
from headless.analysis.states.moments import shares_below, values_of
from headless.errors import HeadlessError
from headless.geometry.gaussianity import best_fit, fit_distributions, gaussian_distance
from headless.geometry.gaussianity import moments as moments_of
from headless.pages.figures import INK, MUTED, compact_ticks, drawing_style, series_color

FITTED = 20_000  # values to which distributions are fitted
SMALL = 0.01  # of the root mean square: as good as off
MOST = 5  # neurons that are named
NULL = 200_000  # values of the null model
ABOUT = (
    "Inside each MLP, before its last matrix, stand its neurons: the nonlinearity's output, in "
    "gated MLPs times the second product. A neuron that is near 0 adds nothing. The share of small "
    "activations (below 1 % of the block's root mean square), the share at or below 0, neurons "
    "that were above 0 for no token, and kurtosis say how sparse a block is; the sorted mean "
    "squares say whether a few neurons carry it. The null model sends independent Gaussian numbers "
    "of one size through the same nonlinearity, scaled to the same root mean square: what it has "
    "of kurtosis and small values is the nonlinearity's alone. All tokens but each sequence's "
    "first."
)
Activation = Callable[[Tensor], Tensor]


def hidden_activations(
    statistics: Mapping[Point, Statistics],
    *,
    activation: Activation | None = None,
    gated: bool = False,
    seed: int = 0,
) -> Finding:
    """Distribution, sparsity and the most active neurons of every MLP.

    Args:
        statistics: of `measure` at `hidden` points (see `inner_points_of`).
        activation: the nonlinearity, for the null model (`families.activation_of`).
        gated: whether its output is multiplied with a second product.
        seed: of the null model.

    Raises:
        HeadlessError: no hidden point was measured.
    """
    blocks = states_of(statistics, "hidden")
    if not blocks:
        raise HeadlessError("no hidden point was measured: measure the inner points, too")
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {"edges": histogram_edges()}
    nulls: dict[int, np.ndarray] = {}
    tops, kinds = [], []
    for block, s in blocks:
        key = f"hidden_activations/{block:02d}"
        values = torch.from_numpy(values_of(s.histogram.numpy(), FITTED))
        scalars |= {f"{key}/{name}": value for name, value in _block(s, values).items()}
        fits = fit_distributions(values)
        kinds.append(best_fit(fits, FITTED))
        scalars[f"{key}/student_t_nu"] = fits["student_t"].nu
        square_U = (s.powers_G4D[REST, 1] / s.count_G[REST]).numpy()
        order = np.argsort(-square_U, kind="stable")
        tops.append(order[:MOST])
        arrays[f"{block:02d}/histogram"] = s.histogram.numpy()
        arrays[f"{block:02d}/mean_square_by_rank"] = square_U[order] / square_U.mean()
        if activation is not None:
            nulls[block] = _null(activation, gated, scalars[f"{key}/rms"], seed)
            scalars |= {f"{key}/null/{k}": v for k, v in _of_null(nulls[block]).items()}
    arrays["most_active"] = np.array(tops)
    numbers = [block for block, _ in blocks]
    return Finding(
        name="hidden_activations",
        title="The MLP's neurons",
        about=ABOUT,
        answer=_answer(scalars, numbers, arrays, kinds),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "hidden-histograms",
                "Density of the neurons' activations in units of the block's root mean square, "
                "logarithmic." + (" Dashed: the null model of the middle block." if nulls else ""),
                lambda: _draw_histograms(blocks, scalars, nulls),
            ),
            Picture(
                "hidden-sparsity",
                "By block: how many activations are small or not above 0, and excess kurtosis"
                + (", beside the null model (grey)." if nulls else "."),
                lambda: _draw_sparsity(scalars, numbers, bool(nulls)),
            ),
            Picture(
                "hidden-neurons",
                "Mean square of each neuron over the mean of all, sorted, for every block: a flat "
                "line where all neurons are alike.",
                lambda: _draw_neurons(arrays, numbers),
                wide=False,
            ),
        ),
    )


def _block(s: Statistics, values_N: Tensor) -> dict[str, float]:
    """The scalars of one block; values_N stand for its histogram."""
    kurtosis_U = moments.excess_kurtosis(s)
    square_U = s.powers_G4D[REST, 1] / s.count_G[REST]
    positive_U = s.positive_GD[REST] / s.count_G[REST]
    rms = math.sqrt(float(square_U.mean()))
    histogram = s.histogram.numpy()
    below, above = shares_below(histogram, np.array([-SMALL, SMALL]) * rms)
    sorted_U = square_U.sort(descending=True).values
    return {
        "rms": rms,
        "small": float(above - below),
        "not_positive": 1 - float(positive_U.mean()),
        "never_positive": float((positive_U == 0).double().mean()),
        "kurtosis/pooled": moments.pooled_excess_kurtosis(s),
        "kurtosis/median_neuron": float(kurtosis_U.nanmedian()),
        "largest": float(s.largest_GD[REST].max()),
        "top_1_share": float(sorted_U[0] / sorted_U.sum()),
        "top_percent_share": float(
            sorted_U[: max(1, round(0.01 * len(sorted_U)))].sum() / sorted_U.sum()
        ),
        "gaussian_distance": gaussian_distance(values_N),
        "tail_ratio": moments_of(values_N).tail_ratio,
    }


def _null(activation: Activation, gated: bool, rms: float, seed: int) -> np.ndarray:
    """The nonlinearity's output for Gaussian input of the size that gives this root mean square."""
    generator = torch.Generator().manual_seed(seed)
    first_N, second_N = torch.randn(2, NULL, generator=generator, dtype=torch.float64)

    def output(size: float) -> Tensor:
        out_N = activation(size * first_N)
        return out_N * size * second_N if gated else out_N

    low, high = -20.0, 20.0  # log of the input's size
    for _ in range(50):
        middle = (low + high) / 2
        if float(output(math.exp(middle)).square().mean().sqrt()) < rms:
            low = middle
        else:
            high = middle
    return output(math.exp(low)).numpy()


def _of_null(values_N: np.ndarray) -> dict[str, float]:
    rms = float(np.sqrt(np.square(values_N).mean()))
    return {
        "kurtosis": moments_of(torch.from_numpy(values_N)).excess_kurtosis,
        "small": float((np.abs(values_N) < SMALL * rms).mean()),
        "not_positive": float((values_N <= 0).mean()),
    }


def _course(scalars: Mapping[str, float], blocks: list[int], name: str) -> np.ndarray:
    return np.array([scalars[f"hidden_activations/{block:02d}/{name}"] for block in blocks])


def _answer(
    scalars: Mapping[str, float],
    blocks: list[int],
    arrays: Mapping[str, np.ndarray],
    kinds: list[str],
) -> str:
    def median(name: str) -> float:
        return float(np.median(_course(scalars, blocks, name)))

    kurtosis = _course(scalars, blocks, "kurtosis/pooled")
    share = _course(scalars, blocks, "top_1_share")
    worst = int(share.argmax())
    common = max(sorted(set(kinds)), key=kinds.count).replace("_", "-")
    text = (
        f"In the median block {median('small'):.0%} of the activations are below 1 % of the root "
        f"mean square and {median('not_positive'):.0%} not above 0; "
        f"{median('never_positive'):.1%} of the neurons never are above 0. Excess kurtosis is "
        f"{np.median(kurtosis):.0f} (up to {kurtosis.max():,.0f}), that of a median neuron "
        f"{median('kurtosis/median_neuron'):.1f}"
    )
    if f"hidden_activations/{blocks[0]:02d}/null/kurtosis" in scalars:
        text += (
            f"; the nonlinearity alone gives {median('null/kurtosis'):.1f} and "
            f"{median('null/small'):.0%} small ones"
        )
    return (
        f"{text}. The likeliest of Gaussian, logistic, Laplace and Student-t is mostly {common}. "
        f"The most active neuron, number {arrays['most_active'][worst, 0]} of block "
        f"{blocks[worst]}, has {share[worst]:.0%} of its block's sum of squares."
    )


def _draw_histograms(
    blocks: list[tuple[int, Statistics]], scalars: Mapping[str, float], nulls: dict[int, np.ndarray]
) -> Any:
    wanted = np.linspace(-12, 12, 161)
    middles = (wanted[1:] + wanted[:-1]) / 2

    def show(panel: Any, below: np.ndarray, **options: Any) -> None:
        density = np.diff(below) / np.diff(wanted)
        panel.plot(middles, np.where(density > 1e-9, np.log10(density + 1e-30), np.nan), **options)

    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.4)
        for (block, s), color in zip(blocks, depth_colors(len(blocks)), strict=True):
            x = wanted * scalars[f"hidden_activations/{block:02d}/rms"]
            show(panel, shares_below(s.histogram.numpy(), x), color=color, linewidth=1.0)
        if nulls:
            null = nulls[blocks[len(blocks) // 2][0]]
            rms = np.sqrt(np.square(null).mean())
            below = np.searchsorted(np.sort(null), wanted * rms) / len(null)
            show(panel, below, color=INK, ls="--", lw=1.2, zorder=5)
        panel.set(xlabel="activation, in root mean squares", ylabel="log10 density")
        show_depth(figure, panel, [block for block, _ in blocks])
    return figure


def _draw_sparsity(scalars: Mapping[str, float], blocks: list[int], null: bool) -> Any:
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.0)
        lines = {
            "small": "below 1 % of the root mean square",
            "not_positive": "at or below 0",
            "never_positive": "neurons never above 0",
        }
        for index, (name, label) in enumerate(lines.items()):
            color = series_color(index)
            options: dict[str, Any] = {"color": color, "marker": "o", "markersize": 3}
            panels[0].plot(blocks, _course(scalars, blocks, name), label=label, **options)
            if null and name != "never_positive":
                y = _course(scalars, blocks, f"null/{name}")
                panels[0].plot(blocks, y, color=color, ls="--", lw=0.9)
        panels[0].set(ylabel="share (dashed: null model)" if null else "share", ylim=(-0.02, 1.02))
        kurtosis = {"kurtosis/pooled": "all neurons", "kurtosis/median_neuron": "median neuron"}
        for index, (name, label) in enumerate(kurtosis.items()):
            y = _course(scalars, blocks, name)
            panels[1].plot(
                blocks, y, color=series_color(index), marker="o", markersize=3, label=label
            )
        if null:
            y = _course(scalars, blocks, "null/kurtosis")
            panels[1].plot(blocks, y, color=MUTED, ls="--", label="null model")
        panels[1].set_yscale("symlog", linthresh=1.0)
        panels[1].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panels[1].set(ylabel="excess kurtosis", ylim=(min(0, panels[1].get_ylim()[0]), None))
        for panel in panels:
            panel.set_xlabel("block")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1, fontsize=8)
    return figure


def _draw_neurons(arrays: Mapping[str, np.ndarray], blocks: list[int]) -> Any:
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.2)
        for block, color in zip(blocks, depth_colors(len(blocks)), strict=True):
            y = arrays[f"{block:02d}/mean_square_by_rank"]
            y = y[y > 0]
            panel.plot(np.arange(1, len(y) + 1), y, color=color, linewidth=1.1)
        panel.axhline(1, color=MUTED, linewidth=0.8, linestyle="--")
        compact_ticks(panel.xaxis, log=True)
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="neuron, by rank", ylabel="mean square over the mean of all")
        show_depth(figure, panel, blocks)
    return figure
