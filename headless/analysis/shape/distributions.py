"""How the entries of states are distributed: pooled, by dimension, along random directions; and
those of the MLPs' neurons.

Shapes: U neurons of a block.
"""

import math
from collections import defaultdict
from statistics import mode
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth, density
from headless.analysis.record import Finding, Measure, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics, histogram_edges
from headless.analysis.states.families import activation_of
from headless.analysis.states.reservoirs import by_place, drawn
from headless.geometry import best_fit, fit_distributions, gaussian_distance
from headless.geometry import moments as moments_of

DIRECTIONS = 64  # random directions whose projections are looked at
FITTED = 20_000  # values to which distributions are fitted
SMALL = 0.01  # of a block's root mean square: a neuron as good as off
NULL = 200_000  # values of the neurons' null model
EDGES = np.linspace(-12, 12, 121)  # of densities, in standard deviations
MIDDLES = (EDGES[1:] + EDGES[:-1]) / 2
GAUSSIAN = np.exp(-np.square(MIDDLES) / 2) / math.sqrt(2 * math.pi)
LOGISTIC = Sample(EDGES, math.pi / math.sqrt(48) / np.cosh(MIDDLES * math.pi / math.sqrt(12)) ** 2)
SINGLE = "each dimension by itself"
MEASURES = (
    Measure("kurtosis/pooled", "pooled", null="kurtosis/directions"),
    Measure("kurtosis/median_dimension", "excess kurtosis of the median dimension"),
    Measure("logistic_gain/pooled", "nats an entry that a logistic gains over a Gaussian"),
    Measure("tail_ratio/pooled", "pooled entries beyond 4 standard deviations over a Gaussian's"),
)
NEURONS = (
    Measure("small", "below 1 % of the root mean square", null="null/small"),
    Measure("not_positive", "at or below 0", null="null/not_positive"),
    Measure("never_positive", "neurons never above 0"),
    Measure("kurtosis/pooled", "all neurons", null="null/kurtosis"),
    Measure("kurtosis/median_neuron", "median neuron"),
)
PARTS = ("post", "mid", "attn", "mlp", "norm1", "norm2")

SINGLES = values("kurtosis/median_dimension", "post")
CLAIMS = (
    Claim(
        CONJECTURE,
        "activations are nearly Gaussian",
        SINGLES.reduced("median size of the", lambda x: np.median(np.abs(x))) < 0.5,
    ),
    Claim(
        CONJECTURE,
        "with extreme outliers",
        values("tail_ratio/pooled", "post").median.formed(".0f") > 5,
    ),
    Claim(
        CONJECTURE + ", comments",
        "tails are heavier than a Gaussian's, nearer to a logistic or exponential one",
        values("logistic_gain/pooled", "post")
        .reduced("share of blocks with a gain, of the", lambda x: np.mean(x > 0))
        .formed(".0%")
        > 0.5,
    ),
)


@analysis(
    "histograms",
    name="activations",
    title="Are activations Gaussian?",
    about=(
        "The entries of the states at every point, over all tokens but each sequence's first, "
        "in three views. Pooled: all dimensions in one histogram, which mixes dimensions of "
        "different size. Per dimension: each less its mean and over its standard deviation. "
        "Random directions: projections on directions drawn uniformly, which are Gaussian for "
        "nearly any cloud of many independent dimensions: the null. Excess kurtosis is 0 for a "
        "Gaussian and 3 for a Laplace distribution; of Gaussian, logistic, Laplace and "
        "Student-t, fitted by maximum likelihood, the likeliest is named (with a price on each "
        "parameter)."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        density(
            "activation-histograms",
            "Density of the entries of the stream after the blocks, logarithmic, in standard "
            "deviations: pooled, and with each dimension standardised by itself. Filled: a "
            "Gaussian (null); black: a logistic distribution of the same variance.",
            "_densities",
            x="standard deviations",
            log="y",
            null="a Gaussian",
            floor=1e-7,
        ),
        by_depth(
            "activation-kurtosis",
            "Excess kurtosis by block (where large, linear below 1 only): pooled, of the median "
            "dimension, and of random directions (null).",
            *(
                Panel(part, ("kurtosis/pooled", "kurtosis/median_dimension"), (part,), log="s",
                      zero=True)
                for part in PARTS
            ),
        ),
    ),
    claims=CLAIMS,
)  # fmt: skip
def activations(lab: Session, *, nulls: bool) -> Finding:
    """Gaussianity of three views at every point; with `nulls=False` kurtosis alone."""
    measured = {
        place: s
        for place, s in by_place(lab.statistics).items()
        if place.kind == "post" or not lab.claims_only
    }
    numbers = {place: _kurtosis(s) for place, s in measured.items()}
    payloads: dict[str, dict[Place, Any]] = defaultdict(dict)
    kinds: list[str] = []
    for place, s in measured.items() if nulls else ():
        views = views_of(s, lab.seed)
        kind, fitted = _view_numbers(views, lab.seed)
        numbers[place] |= fitted
        payloads["{place}/histogram"][place] = histogram_of(s)
        if place.kind == "post":
            kinds.append(kind)
            for title, view in (("pooled", "pooled"), (SINGLE, "dimensions")):
                density_K = np.histogram(views[view], EDGES)[0] / len(views[view]) / np.diff(EDGES)
                payloads["_densities"].setdefault(Place(title), LOGISTIC)
                shown = Sample(EDGES, density_K, GAUSSIAN)
                payloads["_densities"][Place(title, place.block)] = shown
    if nulls:
        payloads["edges"] = {Place(): histogram_edges()}
    finding = Finding(series_of(numbers, MEASURES), payloads)
    pooled, single = (finding.values(m.name, "post") for m in MEASURES[:2])
    answer = (
        f"After the blocks the excess kurtosis is {np.median(pooled):.1f} pooled (between "
        f"{pooled.min():.1f} and {pooled.max():.1f}) and {np.median(single):.2f} in the median "
        "dimension (0: Gaussian)."
    )
    if kinds:
        common = mode(kinds)
        answer += (
            f" The likeliest distribution of standardised dimensions is {common.replace('_', '-')} "
            f"after {kinds.count(common)} of {len(kinds)} blocks."
        )
    return finding.answered(answer)


def histogram_of(s: Statistics) -> Sample:
    """Of all entries at a point."""
    counts = s.histogram.numpy()
    return Sample(histogram_edges(), counts, count=int(counts.sum()))


def _kurtosis(s: Statistics) -> dict[str, float]:
    kurtosis_D = moments.excess_kurtosis(s)
    return {
        "kurtosis/pooled": moments.pooled_excess_kurtosis(s),
        "kurtosis/median_dimension": float(kurtosis_D.nanmedian()),
        "kurtosis/largest_dimension": float(kurtosis_D.nan_to_num(-3).max()),
    }


def _view_numbers(views: dict[str, Tensor], seed: int) -> tuple[str, dict[str, float]]:
    """The likeliest distribution of single dimensions, and the numbers of every view."""
    numbers, kind = {}, ""
    for name, values_N in views.items():
        measured, fitted_N = moments_of(values_N), drawn(values_N, FITTED, seed)
        numbers[f"tail_ratio/{name}"] = measured.tail_ratio
        numbers[f"gaussian_distance/{name}"] = gaussian_distance(fitted_N)
        if name == "directions":
            numbers["kurtosis/directions"] = measured.excess_kurtosis
            continue
        fits = fit_distributions(fitted_N)
        numbers[f"student_t_nu/{name}"] = fits["student_t"].nu
        gain = fits["logistic"].log_likelihood - fits["gaussian"].log_likelihood
        numbers[f"logistic_gain/{name}"] = gain
        kind = best_fit(fits, len(fitted_N))
    return kind, numbers


def views_of(s: Statistics, seed: int) -> dict[str, Tensor]:
    """Flat standardised values of the three views, from the reservoir."""
    x_KD = s.sample_KD.double()
    mean_D, std_D = moments.mean(s), moments.variance(s).clamp(min=0).sqrt()
    alive_D = std_D > 0
    scaled_KD = ((x_KD - mean_D) / std_D.where(alive_D, 1.0))[:, alive_D]
    draw, shape = torch.Generator().manual_seed(seed), (scaled_KD.shape[1], DIRECTIONS)
    projected_KR = scaled_KD @ torch.randn(shape, generator=draw, dtype=torch.float64)
    projected_KR = (projected_KR - projected_KR.mean(dim=0)) / projected_KR.std(dim=0)
    return {
        "pooled": ((x_KD - x_KD.mean()) / x_KD.std()).flatten(),
        "dimensions": scaled_KD.flatten(),
        "directions": projected_KR.flatten(),
    }


@analysis(
    "histograms",
    name="hidden_activations",
    title="The MLP's neurons",
    about=(
        "Inside each MLP, before its last matrix, stand its neurons: the nonlinearity's output, "
        "in gated MLPs times the second product. How sparse a block is say the share of small "
        "activations (below 1 % of its root mean square), the share at or below 0, neurons that "
        "were above 0 for no token, and kurtosis; whether one neuron carries it, the largest "
        "share of its sum of squares. The null model sends independent Gaussian numbers through "
        "the same nonlinearity, scaled to the same root mean square. All tokens but each "
        "sequence's first."
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
    ),
)
def hidden_activations(lab: Session, *, nulls: bool) -> Finding | None:
    """Distribution and sparsity of every MLP's neurons, and the most active of them."""
    blocks = {Place("", p.block): s for p, s in lab.inner.items()}
    if not blocks:
        return None
    middle = list(blocks)[len(blocks) // 2]
    numbers: dict[Place, dict[str, float]] = {}
    strongest, densities = {}, {}
    for place, s in blocks.items():
        square_U = (s.powers_G4D[REST, 1] / s.count_G[REST]).numpy()
        positive_U = s.positive_GD[REST] / s.count_G[REST]
        rms, strongest[place] = math.sqrt(square_U.mean()), int(square_U.argmax())
        below, above = moments.shares_below(s.histogram.numpy(), np.array([-SMALL, SMALL]) * rms)
        null_N = neurons_of_noise(lab.subject.backbone, rms, lab.seed)
        numbers[place] = {
            "rms": rms,
            "small": float(above - below),
            "not_positive": 1 - float(positive_U.mean()),
            "never_positive": float((positive_U == 0).double().mean()),
            "kurtosis/pooled": moments.pooled_excess_kurtosis(s),
            "kurtosis/median_neuron": float(moments.excess_kurtosis(s).nanmedian()),
            "largest": float(s.largest_GD[REST].max()),
            "top_1_share": float(square_U.max() / square_U.sum()),
            "null/kurtosis": moments_of(torch.from_numpy(null_N)).excess_kurtosis,
            "null/small": float((np.abs(null_N) < SMALL * rms).mean()),
            "null/not_positive": float((null_N <= 0).mean()),
        }
        null_K = np.histogram(null_N / rms, EDGES)[0] / NULL / np.diff(EDGES)
        density_K = moments.density_of(s, 0.0, rms, EDGES)
        densities[place] = Sample(EDGES, density_K, null_K if place == middle else None)
    payloads: dict[str, dict[Place, Any]] = {
        "_densities": densities,
        "edges": {Place(): histogram_edges()},
        "{place}/histogram": {place: histogram_of(s) for place, s in blocks.items()},
    }
    median = {name: np.median([own[name] for own in numbers.values()]) for name in numbers[middle]}
    worst = max(numbers, key=lambda place: numbers[place]["top_1_share"])
    return Finding(series_of(numbers, NEURONS), payloads).answered(
        f"In the median block {median['small']:.0%} of the activations are below 1 % of the root "
        f"mean square ({median['null/small']:.0%} by the nonlinearity alone); excess kurtosis is "
        f"{median['kurtosis/pooled']:.0f} ({median['null/kurtosis']:.1f}). The most active neuron, "
        f"number {strongest[worst]} of block {worst}, has {numbers[worst]['top_1_share']:.0%} of "
        "its block's sum of squares."
    )


def neurons_of_noise(backbone: nn.Module, rms: float, seed: int) -> np.ndarray:
    """The nonlinearity's output for Gaussian input of the size that gives this root mean square."""
    from scipy.optimize import brentq

    activation, gated = activation_of(backbone)
    generator = torch.Generator().manual_seed(seed)
    first_N, second_N = torch.randn(2, NULL, generator=generator, dtype=torch.float64)

    def output(log_size: float) -> Tensor:
        size = math.exp(log_size)
        out_N = activation(size * first_N)
        return out_N * size * second_N if gated else out_N

    size = brentq(lambda s: float(output(s).square().mean().sqrt()) - rms, -20.0, 20.0)
    return output(size).numpy()
