"""Histograms of every matrix's entries: Gaussian, or heavier in the tails?"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, share
from headless.analysis.claims import values as measured
from headless.analysis.drawing.grid import (
    DASHED,
    kind_color,
    label_edges,
    legend,
    panels_of,
    place_name,
)
from headless.analysis.drawing.map import fill_map
from headless.analysis.record import (
    MODEL,
    Figure,
    Finding,
    Map,
    Payload,
    Place,
    Sample,
    series_of,
)
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, WEIGHT_TAILS
from headless.analysis.states.families import Matrix
from headless.analysis.weights.matrices import SEED, middle_block, pairs
from headless.geometry import best_fit, fit_distributions, gaussian_distance, moments
from headless.geometry.gaussianity import TAIL_AT_4, log_density
from headless.pages.figures import INK, MUTED, drawing_style, new_figure

SAMPLE = 32_768  # entries that distributions are fitted to; moments take all
EDGES = np.linspace(-8, 8, 97)  # of the histograms, in standard deviations; outer bins hold more
QUANTILES = 201
DISTRIBUTIONS = ("gaussian", "logistic", "laplace", "student_t")
Z = torch.linspace(-4, 4, QUANTILES, dtype=torch.float64)
SHARES = torch.special.ndtr(Z).numpy()  # of a Gaussian, at even steps
START = measured("excess_kurtosis_start")


def _draw_histograms(finding: Finding) -> Any:
    z = torch.linspace(-8, 8, 321, dtype=torch.float64)
    fits = finding.payloads["_student/{place}"]
    with drawing_style():
        figure, panels = panels_of(len(fits))
        for panel, place in zip(panels, fits, strict=True):
            density = finding.arrays[f"density/{place}"]
            panel.stairs(density, EDGES, fill=True, color=kind_color(place.kind), alpha=0.45)
            panel.plot(z.numpy(), log_density("gaussian", z).exp().numpy(), color=INK, lw=1)
            location, scale, nu, kurtosis = np.asarray(fits[place]).tolist()
            if math.isfinite(scale):
                fitted = log_density("student_t", (z - location) / scale, nu).exp() / scale
                panel.plot(z.numpy(), fitted.numpy(), color=INK, ls=DASHED, lw=1)
            note = f"kurtosis {kurtosis:.2f}\nν {min(nu, 999):.0f}"
            panel.text(0.03, 0.97, note, transform=panel.transAxes, va="top", color=MUTED)
            panel.set(yscale="log", ylim=(1e-6, 2), title=place_name(place))
            panel.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        label_edges(panels, "standard deviations", "density")
        legend(figure, [("Gaussian", INK, "solid"), ("Student-t, fitted", INK, DASHED)])
    return figure


def _draw_quantiles(finding: Finding) -> Any:
    roles = finding.series["excess_kurtosis"].kinds
    middle = middle_block(finding.series["excess_kurtosis"].places)
    table = np.stack([finding.values("excess_kurtosis", role) for role in roles])
    noise = torch.randn(20, SAMPLE, generator=torch.Generator().manual_seed(SEED)).numpy()
    null = np.quantile(noise, SHARES, axis=1)
    with drawing_style():
        figure = new_figure(11.2, 3.6)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        left.fill_between(Z, null.min(axis=1), null.max(axis=1), color=MUTED, alpha=0.3, lw=0)
        left.plot(Z, Z, color=MUTED, lw=0.8)
        for role in roles:
            own = finding.arrays[f"quantiles/{Place(role, middle)}"]
            left.plot(Z, own, color=kind_color(role), lw=1.2)
        left.set(ylim=(-9, 9), title=f"quantiles, block {middle}")
        left.set(xlabel="of a Gaussian", ylabel="of the entries")
        logs = np.log10(1 + np.clip(np.nan_to_num(table), 0, None))
        fill_map(right, Map(logs, rows=roles), table)
        right.set(xlabel="block", title=f"excess kurtosis, {table.min():.2f} to {table.max():.2f}")
        legend(figure, [(role, kind_color(role), "solid") for role in roles])
    return figure


@analysis(
    "weights",
    name="weight_values",
    title="Values of the weights",
    about=(
        "The entries of a matrix begin as independent draws, mostly Gaussian ones. Excess kurtosis "
        "(0 for a Gaussian, 3 for a Laplace distribution) and the tail ratio (how many more "
        "entries lie beyond 4 standard deviations than a Gaussian has there) say whether training "
        "made some of them large; so does which of four distributions fits best: Gaussian, "
        "logistic, Laplace or Student-t, whose degrees of freedom ν are small for heavy tails. "
        "Millions of entries reject every test, so these are sizes of effects. Moments are of all "
        f"entries; distributions and Kolmogorov's distance of {SAMPLE:,} drawn at random. The null "
        "is a Gaussian sample of that size."
    ),
    cheap=True,
    figures=(
        Figure(
            "weight-values",
            "Histogram of the standardised entries of a middle block, logarithmic, with the "
            "Gaussian null (line) and the fitted Student-t (dashed).",
            _draw_histograms,
            of=("_student/{place}",),
        ),
        Figure(
            "weight-quantiles",
            "Left: quantiles of the entries of a middle block over those of a Gaussian, which lies "
            "on the straight line; the grey band is where Gaussian samples of the same size lie. "
            "Right: excess kurtosis of every matrix.",
            _draw_quantiles,
            of=("quantiles/{place}",),
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "Weights are nearly Gaussian, without outliers.",
            share(  # of a small matrix a Gaussian has less than one entry there: 3 more are chance
                "matrices with an excess kurtosis within ±0.5 and at most 3 times a Gaussian's "
                "entries (and 3 more) beyond 4 standard deviations:",
                lambda n, kurtosis, tail: (
                    (np.abs(kurtosis) <= 0.5) & (tail <= 3 + 3 / (TAIL_AT_4 * n))
                ),
                "count",
                "excess_kurtosis",
                "tail_ratio",
            )
            >= 0.8,
            contested=WEIGHT_TAILS,
        ),
        Claim(
            "Conjecture 2023, part 2 (Pythia over training)",
            "Weights pass from a Gaussian to heavy tails.",
            share(
                "matrices with an excess kurtosis of at least 1 that a distribution with heavier "
                "tails than a Gaussian's fits best:",
                lambda heavy, kurtosis: (heavy > 0) & (kurtosis >= 1),
                "_heavy",
                "excess_kurtosis",
            )
            >= 0.5,
            contested=WEIGHT_TAILS,
        ),
        Claim(
            CONJECTURE,
            "Weights that begin with another distribution become Gaussian (asked, not answered).",
            (
                measured("excess_kurtosis").reduced(
                    "median size of", lambda x: np.median(np.abs(x))
                )
                <= 0.5 * START.reduced("median size of", lambda x: np.median(np.abs(x)))
            ).given(
                START.reduced("size of the median", lambda x: abs(np.median(x))) > 0.1,
                "asked where the weights before training are known and were no Gaussian's",
            ),
        ),
    ),
)
def weight_values(lab: Session, *, nulls: bool) -> Finding:
    """Moments of every matrix's entries; with nulls also the best fitting distribution."""
    numbers: dict[Place, dict[str, float]] = {}
    payloads: dict[str, dict[Place, Payload]] = {"edges": {MODEL: EDGES}}
    winners: dict[str, int] = {}
    matrices = pairs(lab.subject.weights, lab.subject.initial if nulls else None)
    middle = middle_block([Place(matrix.role, matrix.block) for matrix, _ in matrices])
    for matrix, start in matrices:
        place = Place(matrix.role, matrix.block)
        numbers[place], z, density = _moments(matrix)
        payloads.setdefault("density/{place}", {})[place] = density
        if start is not None:
            numbers[place]["excess_kurtosis_start"] = moments(start.weight).excess_kurtosis
        if nulls:
            fitted, best, student, quantiles = _fits(z, numbers[place])
            numbers[place] |= fitted
            for name in DISTRIBUTIONS:
                winners[name] = winners.get(name, 0) + (name == best)
            payloads.setdefault("quantiles/{place}", {})[place] = quantiles
            if place.block == middle:
                payloads.setdefault("_student/{place}", {})[place] = student
    shares = {name: count / len(matrices) for name, count in winners.items()}
    series = series_of(numbers, per_kind=True) | series_of({Place("best"): shares})
    finding = Finding(series, payloads)
    answer = (
        f"Mean excess kurtosis is {finding.by_kind('excess_kurtosis', 1)} (largest "
        f"{finding.values('excess_kurtosis').max():.1f}; a Gaussian has 0); in the median matrix "
        f"{np.median(finding.values('tail_ratio')):.1f} times as many entries as a Gaussian's lie "
        "beyond 4 standard deviations."
    )
    if nulls:
        told = [f"{name.replace('_t', '-t')} {part:.0%}" for name, part in shares.items() if part]
        answer += f" The likeliest distributions: {', '.join(told)}."
    return finding.answered(answer)


def _fits(
    z: Tensor, known: dict[str, float]
) -> tuple[dict[str, float], str, np.ndarray, np.ndarray]:
    """Numbers of a sample; the likeliest distribution; of Student's t what is drawn; quantiles."""
    sample = sample_of(z)
    fits = fit_distributions(sample)
    best, t = best_fit(fits, len(sample)), fits["student_t"]
    numbers = {
        "gaussian_distance": gaussian_distance(sample) if known["std"] > 0 else math.nan,
        "nu": t.nu,
        "_heavy": float(best != "gaussian"),
        **{f"log_likelihood/{name}": fit.log_likelihood for name, fit in fits.items()},
    }
    student = np.array([t.location, t.scale, t.nu, known["excess_kurtosis"]])
    return numbers, best, student, np.quantile(sample.cpu().numpy(), SHARES)


def _moments(matrix: Matrix) -> tuple[dict[str, float], Tensor, Sample]:
    """Of all entries; the standardised entries, and their histogram."""
    own = moments(matrix.weight)
    z = (matrix.weight.double().flatten() - own.mean) / (own.std if own.std > 0 else 1.0)
    inside = z.clamp(EDGES[0] + 1e-9, EDGES[-1] - 1e-9).float()
    count_K = torch.histc(inside, bins=len(EDGES) - 1, min=EDGES[0], max=EDGES[-1])
    density_K = count_K.double().cpu().numpy() / z.numel() / (EDGES[1] - EDGES[0])
    names = ("excess_kurtosis", "tail_ratio", "skew", "std", "mean", "largest", "count")
    return (
        {name: getattr(own, name) for name in names},
        z,
        Sample(EDGES, density_K, count=own.count),
    )


def sample_of(values: Tensor, size: int = SAMPLE) -> Tensor:
    """At most `size` of the values, drawn at random with a fixed seed."""
    values = values.flatten()
    if len(values) <= size:
        return values
    draw = torch.Generator(device=values.device).manual_seed(SEED)
    return values[torch.randint(len(values), (size,), generator=draw, device=values.device)]
