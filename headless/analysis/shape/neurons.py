"""What stands inside the blocks: the MLPs' neurons and what each attention head gives.

Shapes: U neurons of a block, B blocks, H heads.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank, density, heatmap
from headless.analysis.record import Finding, Map, Measure, Place, Sample, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.shape.gaussianity import histogram_of
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics, histogram_edges
from headless.analysis.states.families import activation_of
from headless.geometry import moments as moments_of

SMALL = 0.01  # of the root mean square: as good as off
MOST = 5  # neurons that are named
NULL = 200_000  # values of the null model
EDGES = np.linspace(-12, 12, 161)  # of densities, in root mean squares
MEASURES = (
    Measure("small", "below 1 % of the root mean square", null="null/small"),
    Measure("not_positive", "at or below 0", null="null/not_positive"),
    Measure("never_positive", "neurons never above 0"),
    Measure("kurtosis/pooled", "all neurons", null="null/kurtosis"),
    Measure("kurtosis/median_neuron", "median neuron"),
)
ANSWERED = (
    "small",
    "not_positive",
    "kurtosis/pooled",
    "kurtosis/median_neuron",
    "null/kurtosis",
    "null/small",
)
Activation = Callable[[Tensor], Tensor]


@analysis(
    "histograms",
    name="hidden_activations",
    title="The MLP's neurons",
    about=(
        "Inside each MLP, before its last matrix, stand its neurons: the nonlinearity's output, in "
        "gated MLPs times the second product. A neuron that is near 0 adds nothing. The share of "
        "small activations (below 1 % of the block's root mean square), the share at or below 0, "
        "neurons that were above 0 for no token, and kurtosis say how sparse a block is; the "
        "sorted mean squares say whether a few neurons carry it. The null model sends independent "
        "Gaussian numbers of one size through the same nonlinearity, scaled to the same root mean "
        "square: what it has of kurtosis and small values is the nonlinearity's alone. All tokens "
        "but each sequence's first."
    ),
    needs={"text"},
    figures=(
        density(
            "hidden-histograms",
            "Density of the neurons' activations in units of the block's root mean square, "
            "logarithmic. Filled: the null model of the middle block.",
            "_densities",
            x="activation, in root mean squares",
            log="y",
            floor=1e-9,
            null="null model of the middle block",
        ),
        by_depth(
            "hidden-sparsity",
            "By block: how many activations are small or not above 0, and excess kurtosis, beside "
            "the null model (dashed).",
            Panel("share", ("small", "not_positive", "never_positive"), limits=(-0.02, 1.02)),
            Panel("excess kurtosis", ("kurtosis/pooled", "kurtosis/median_neuron"), log="s"),
        ),
        by_rank(
            "hidden-neurons",
            "Mean square of each neuron over the mean of all, sorted, for every block: a flat "
            "line where all neurons are alike.",
            Ranks(
                "{place}/mean_square_by_rank",
                "neuron, by rank",
                "mean square over the mean of all",
                null="all alike",
            ),
            wide=False,
        ),
    ),
)
def hidden_activations(lab: Session, *, nulls: bool) -> Finding:
    """Distribution, sparsity and the most active neurons of every MLP."""
    blocks = {Place("", p.block): s for p, s in lab.inner.items() if p.component == "hidden"}
    activation, gated = activation_of(lab.subject.backbone)
    middle = list(blocks)[len(blocks) // 2]
    numbers, orders, spectra, densities = {}, [], {}, {}
    for place, s in blocks.items():
        square_U = (s.powers_G4D[REST, 1] / s.count_G[REST]).numpy()
        rms = math.sqrt(square_U.mean())
        null_N = null_values(activation, gated, rms, lab.seed)
        numbers[place] = _block_numbers(s, rms, square_U) | {
            "null/kurtosis": moments_of(torch.from_numpy(null_N)).excess_kurtosis,
            "null/small": float((np.abs(null_N) < SMALL * rms).mean()),
            "null/not_positive": float((null_N <= 0).mean()),
        }
        orders.append(np.argsort(-square_U, kind="stable"))
        by_rank_U = square_U[orders[-1]] / square_U.mean()
        spectra[place] = Spectrum(by_rank_U, null=np.ones_like(by_rank_U))
        null_K = np.histogram(null_N / rms, EDGES)[0] / NULL / np.diff(EDGES)
        density_K = moments.density_of(s, 0.0, rms, EDGES)
        densities[place] = Sample(EDGES, density_K, null_K if place == middle else None)
    finding = Finding(
        series_of(numbers, MEASURES),
        {
            "_densities": densities,
            "edges": {Place(): histogram_edges()},
            "{place}/histogram": {place: histogram_of(s) for place, s in blocks.items()},
            "{place}/mean_square_by_rank": spectra,
            "most_active": {Place(): np.array([order[:MOST] for order in orders])},
        },
    )
    share_B = finding.values("top_1_share")
    worst = int(share_B.argmax())
    median = {name: np.median(finding.values(name)) for name in ANSWERED}
    return finding.answered(
        f"In the median block {median['small']:.0%} of the activations are below 1 % of the root "
        f"mean square and {median['not_positive']:.0%} not above 0. Excess kurtosis is "
        f"{median['kurtosis/pooled']:.0f}, that of a median neuron "
        f"{median['kurtosis/median_neuron']:.1f}; the nonlinearity alone gives "
        f"{median['null/kurtosis']:.1f} and {median['null/small']:.0%} small ones. The most active "
        f"neuron, number {orders[worst][0]} of block {list(blocks)[worst]}, has "
        f"{share_B[worst]:.0%} of its block's sum of squares."
    )


def _block_numbers(s: Statistics, rms: float, square_U: np.ndarray) -> dict[str, float]:
    positive_U = s.positive_GD[REST] / s.count_G[REST]
    below, above = moments.shares_below(s.histogram.numpy(), np.array([-SMALL, SMALL]) * rms)
    return {
        "rms": rms,
        "small": float(above - below),
        "not_positive": 1 - float(positive_U.mean()),
        "never_positive": float((positive_U == 0).double().mean()),
        "kurtosis/pooled": moments.pooled_excess_kurtosis(s),
        "kurtosis/median_neuron": float(moments.excess_kurtosis(s).nanmedian()),
        "largest": float(s.largest_GD[REST].max()),
        "top_1_share": float(square_U.max() / square_U.sum()),
    }


def null_values(activation: Activation, gated: bool, rms: float, seed: int) -> np.ndarray:
    """The nonlinearity's output for Gaussian input of the size that gives this root mean square."""
    from scipy.optimize import brentq

    generator = torch.Generator().manual_seed(seed)
    first_N, second_N = torch.randn(2, NULL, generator=generator, dtype=torch.float64)

    def output(size: float) -> Tensor:
        out_N = activation(size * first_N)
        return out_N * size * second_N if gated else out_N

    def excess(log_size: float) -> float:
        return float(output(math.exp(log_size)).square().mean().sqrt()) - rms

    return output(math.exp(brentq(excess, -20.0, 20.0))).numpy()


@analysis(
    "histograms",
    name="head_outputs",
    title="What the heads give",
    about=(
        "Each attention head gives a weighted mean of its values; attention's last matrix reads "
        "all heads side by side. Norms are root mean squares over all tokens but each sequence's "
        "first. A head whose norm is far below the others' has little to add, whatever the matrix "
        "makes of it. Evenness is the number of heads that would share a block's sum of squares "
        "equally ((Σs)²/Σs², s a head's mean square), over the number of heads: 1 where all are "
        "alike."
    ),
    needs={"text"},
    figures=(
        heatmap(
            "head-norms",
            "Root mean square norm of each head's output over the mean of its block; heads "
            "are sorted within each block.",
            "_relative",
            x="block",
            y="head, by rank",
            label="norm over the block's mean",
            wide=False,
        ),
    ),
)
def head_outputs(lab: Session, *, nulls: bool) -> Finding:
    """Norms of the heads' outputs in every block."""
    blocks = {p.block: s for p, s in lab.inner.items() if p.component == "heads"}
    heads = int(lab.subject.backbone.config.num_attention_heads)  # type: ignore[arg-type,union-attr]
    squares_U = [(s.powers_G4D[REST, 1] / s.count_G[REST]).numpy() for s in blocks.values()]
    square_BH = np.stack([x_U.reshape(heads, -1).sum(axis=1) for x_U in squares_U])
    norm_BH, total_B = np.sqrt(square_BH), square_BH.sum(axis=1)
    even_B = total_B**2 / np.square(square_BH).sum(axis=1) / heads
    numbers = {
        Place("", block): {
            "mean_norm": norm_BH[row].mean(),
            "largest_share": square_BH[row].max() / total_B[row],
            "evenness": even_B[row],
        }
        for row, block in enumerate(blocks)
    }
    relative_BH = -np.sort(-norm_BH / norm_BH.mean(axis=1, keepdims=True), axis=1)
    named = tuple(map(str, blocks)) if list(blocks) != list(range(len(blocks))) else ()
    row, head = np.unravel_index(norm_BH.argmax(), norm_BH.shape)
    return Finding(
        series_of(numbers),
        {"norms": {Place(): norm_BH}, "_relative": {Place(): Map(relative_BH.T, columns=named)}},
    ).answered(
        f"Evenness of the {heads} heads is {np.median(even_B):.2f} in the median block, "
        f"{even_B.min():.2f} in block {list(blocks)[int(even_B.argmin())]} where they differ "
        f"most. The largest norm, {norm_BH[row, head]:.3g}, is that of head {head} of block "
        f"{list(blocks)[int(row)]}; the mean of all is {norm_BH.mean():.3g}."
    )
