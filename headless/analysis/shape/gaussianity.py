"""How the entries of states are distributed: pooled, by dimension, along random directions."""

import math
from collections import defaultdict
from statistics import mode
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth, density
from headless.analysis.record import Finding, Measure, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, SMOLLM2
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics, histogram_edges
from headless.analysis.states.reservoirs import by_place, drawn
from headless.geometry.gaussianity import best_fit, fit_distributions, gaussian_distance
from headless.geometry.gaussianity import moments as moments_of

DIRECTIONS = 64  # random directions whose projections are looked at
FITTED = 20_000  # values to which distributions are fitted
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
PARTS = ("post", "mid", "attn", "mlp", "norm1", "norm2")

SINGLES = values("kurtosis/median_dimension", "post")
EARLY = SINGLES.reduced(
    "first half's median size of the", lambda x: np.median(np.abs(x[: max(len(x) // 2, 1)]))
)
LATE = SINGLES.reduced(
    "second half's median size of the", lambda x: np.median(np.abs(x[len(x) // 2 :]))
)
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
    Claim(
        SMOLLM2,
        "dimensions become more Gaussian with depth",
        (LATE <= 0.8 * EARLY).given(SINGLES.count >= 2, "needs two blocks"),
        kind="own",
    ),
)


@analysis(
    "histograms",
    name="activations",
    title="Are activations Gaussian?",
    about=(
        "The numbers inside the model, at every point of every block, over all tokens but each "
        "sequence's first. Three views are kept apart because they answer differently. Pooled: all "
        "dimensions in one histogram, which mixes dimensions of different size. Per dimension: "
        "each dimension less its mean and over its standard deviation. Random directions: "
        "projections of the states on directions drawn uniformly, which are Gaussian for nearly "
        "any cloud of many independent dimensions and so stand as the null. Excess kurtosis is 0 "
        "for a Gaussian and 3 for a Laplace distribution; Gaussian, logistic, Laplace and "
        "Student-t are fitted by maximum likelihood and the likeliest is named (with a price on "
        "each parameter)."
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
            first, second = (s.powers_G4D[REST, :2].mean(dim=1) / s.count_G[REST]).tolist()
            pooled_K = moments.density_of(s, first, math.sqrt(second - first**2), EDGES)
            counts_K, _ = np.histogram(views["dimensions"].numpy(), EDGES)
            single_K = counts_K / len(views["dimensions"]) / np.diff(EDGES)
            for title, density_K in (("pooled", pooled_K), (SINGLE, single_K)):
                shown = payloads["_densities"]
                shown.setdefault(Place(title), LOGISTIC)
                shown[Place(title, place.block)] = Sample(EDGES, density_K, GAUSSIAN)
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
