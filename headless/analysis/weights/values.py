"""Histograms of every matrix's entries: Gaussian, or heavier in the tails?"""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
from torch import Tensor

from headless.analysis.claims import Claim, share
from headless.analysis.drawing import Panel, by_depth, density
from headless.analysis.record import MODEL, Finding, Payload, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, WEIGHT_TAILS
from headless.analysis.states.families import Matrix
from headless.analysis.states.reservoirs import drawn
from headless.analysis.weights.matrices import SEED, middle_block, pairs
from headless.geometry import best_fit, fit_distributions, gaussian_distance, moments
from headless.geometry.gaussianity import TAIL_AT_4

SAMPLE = 32_768  # entries that distributions are fitted to; moments take all
EDGES = np.linspace(-8, 8, 97)  # of the histograms, in standard deviations; outer bins hold more
MIDDLES = (EDGES[1:] + EDGES[:-1]) / 2
GAUSSIAN = np.exp(-np.square(MIDDLES) / 2) / math.sqrt(2 * math.pi)


@analysis(
    "weights",
    name="weight_values",
    title="Values of the weights",
    about=(
        "The entries of a matrix begin as independent, mostly Gaussian draws. Excess kurtosis (0 "
        "for a Gaussian, 3 for a Laplace distribution), the tail ratio (entries beyond 4 standard "
        "deviations over a Gaussian's) and which of Gaussian, logistic, Laplace and Student-t "
        "(degrees of freedom ν) fits best say whether training made some of them large. Moments "
        f"are of all entries; the fits and Kolmogorov's distance of {SAMPLE:,} drawn at random."
    ),
    states="none",
    cheap=True,
    figures=(
        density(
            "weight-values",
            "Histogram of the standardised entries of a middle block beside a Gaussian (filled).",
            "_middle",
            x="standard deviations",
            log="y",
            null="a Gaussian",
            floor=1e-6,
        ),
        by_depth(
            "weight-kurtosis",
            "Excess kurtosis of every matrix, by block; 0 is a Gaussian.",
            Panel("", ("excess_kurtosis",), y="excess kurtosis", log="s", zero=True),
            wide=False,
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
    ),
)
def weight_values(lab: Session, *, nulls: bool) -> Finding:
    """Moments of every matrix's entries; with nulls also the best fitting distribution."""
    numbers: dict[Place, dict[str, float]] = {}
    payloads: dict[str, dict[Place, Payload]] = defaultdict(dict, edges={MODEL: EDGES})
    winners: Counter[str] = Counter()
    matrices = pairs(lab.subject.weights, lab.subject.initial if nulls else None)
    middle = middle_block([Place(matrix.role, matrix.block) for matrix, _ in matrices])
    for matrix, start in matrices:
        place = Place(matrix.role, matrix.block)
        numbers[place], z, sample = _moments(matrix)
        payloads["density/{place}"][place] = sample
        if place.block == middle:
            title = f"{place.kind}: kurtosis {numbers[place]['excess_kurtosis']:.2f}"
            payloads["_middle"][Place(title, middle)] = replace(sample, null=GAUSSIAN)
        if start is not None:
            numbers[place]["excess_kurtosis_start"] = moments(start.weight).excess_kurtosis
        if nulls:
            entries_N = drawn(z, SAMPLE, SEED)
            fits = fit_distributions(entries_N)
            best = best_fit(fits, len(entries_N))
            winners[best] += 1
            numbers[place] |= {
                "gaussian_distance": (
                    gaussian_distance(entries_N) if numbers[place]["std"] > 0 else math.nan
                ),
                "nu": fits["student_t"].nu,
                "_heavy": float(best != "gaussian"),
            }
    shares = {name: winners[name] / len(matrices) for name in fits} if nulls else {}
    series = series_of(numbers, per_kind=True) | series_of({Place("best"): shares})
    finding = Finding(series, payloads)
    answer = (
        f"Mean excess kurtosis is {finding.by_kind('excess_kurtosis', 1)} (largest "
        f"{finding.values('excess_kurtosis').max():.1f}; a Gaussian has 0); in the median matrix "
        f"{np.median(finding.values('tail_ratio')):.1f} times as many entries as a Gaussian's lie "
        "beyond 4 standard deviations."
    )
    if nulls:
        best_first = (f"{n.replace('_t', '-t')} {part:.0%}" for n, part in shares.items() if part)
        answer += f" The likeliest distributions: {', '.join(best_first)}."
    return finding.answered(answer)


def _moments(matrix: Matrix) -> tuple[dict[str, float], Tensor, Sample]:
    """Of all entries; the standardised entries, and their histogram."""
    own = moments(matrix.weight)
    z = (matrix.weight.double().flatten() - own.mean) / (own.std if own.std > 0 else 1.0)
    inside = z.clamp(EDGES[0] + 1e-9, EDGES[-1] - 1e-9).float()
    count_K = inside.histc(len(MIDDLES), EDGES[0], EDGES[-1]).double().cpu().numpy()
    density_K = count_K / z.numel() / (EDGES[1] - EDGES[0])
    names = ("excess_kurtosis", "tail_ratio", "skew", "std", "mean", "largest", "count")
    numbers = {name: getattr(own, name) for name in names}
    return numbers, z, Sample(EDGES, density_K, count=own.count)
