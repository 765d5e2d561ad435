"""Histograms of every matrix's entries: Gaussian, or heavier in the tails?"""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, share
from headless.analysis.claims import values as measured
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank, density
from headless.analysis.record import MODEL, Finding, Payload, Place, Sample, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE, WEIGHT_TAILS
from headless.analysis.states.families import Matrix
from headless.analysis.states.reservoirs import drawn
from headless.analysis.weights.matrices import SEED, middle_block, pairs
from headless.geometry import best_fit, fit_distributions, gaussian_distance, moments
from headless.geometry.gaussianity import TAIL_AT_4, Fit

SAMPLE = 32_768  # entries that distributions are fitted to; moments take all
EDGES = np.linspace(-8, 8, 97)  # of the histograms, in standard deviations; outer bins hold more
QUANTILES = 201
DISTRIBUTIONS = ("gaussian", "logistic", "laplace", "student_t")
Z = torch.linspace(-4, 4, QUANTILES, dtype=torch.float64)
SHARES = torch.special.ndtr(Z).numpy()  # of a Gaussian, at even steps
START = measured("excess_kurtosis_start")


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
        density(
            "weight-values",
            "Histogram of the standardised entries of a middle block, logarithmic: Gaussian null "
            "(filled) and fitted Student-t (black).",
            "_middle",
            x="standard deviations",
            log="y",
            null="a Gaussian",
            floor=1e-6,
        ),
        by_rank(
            "weight-quantiles",
            "Quantiles of the entries over those of a Gaussian, which lies on the straight line; "
            "Gaussian samples of the same size lie between the dashed and the dotted one.",
            Ranks(
                "quantiles/{place}",
                "of a Gaussian",
                "of the entries",
                log="",
                null="smallest of 20 Gaussian samples",
                start="largest",
                limits=(-9, 9),
            ),
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
    payloads: dict[str, dict[Place, Payload]] = defaultdict(dict, edges={MODEL: EDGES})
    winners: Counter[str] = Counter()
    matrices = pairs(lab.subject.weights, lab.subject.initial if nulls else None)
    middle = middle_block([Place(matrix.role, matrix.block) for matrix, _ in matrices])
    for matrix, start in matrices:
        place = Place(matrix.role, matrix.block)
        numbers[place], z, sample = _moments(matrix)
        payloads["density/{place}"][place] = sample
        if start is not None:
            numbers[place]["excess_kurtosis_start"] = moments(start.weight).excess_kurtosis
        if nulls:
            entries_N = drawn(z, SAMPLE, SEED)
            fits = fit_distributions(entries_N)
            best, student = best_fit(fits, len(entries_N)), fits["student_t"]
            winners[best] += 1
            numbers[place] |= {
                "gaussian_distance": (
                    gaussian_distance(entries_N) if numbers[place]["std"] > 0 else math.nan
                ),
                "nu": student.nu,
                "_heavy": float(best != "gaussian"),
                **{f"log_likelihood/{name}": fit.log_likelihood for name, fit in fits.items()},
            }
            quantiles = np.quantile(entries_N.cpu().numpy(), SHARES)
            payloads["quantiles/{place}"][place] = Spectrum(quantiles, *_gaussian_band(), Z.numpy())
            if place.block == middle:
                title = f"{place.kind}: kurtosis {numbers[place]['excess_kurtosis']:.2f}"
                payloads["_middle"] |= _beside_fits(title, middle, sample, student)
    shares = {name: winners[name] / len(matrices) for name in DISTRIBUTIONS} if nulls else {}
    series = series_of(numbers, per_kind=True) | series_of({Place("best"): shares})
    finding = Finding(series, payloads)
    answer = (
        f"Mean excess kurtosis is {finding.by_kind('excess_kurtosis', 1)} (largest "
        f"{finding.values('excess_kurtosis').max():.1f}; a Gaussian has 0); in the median matrix "
        f"{np.median(finding.values('tail_ratio')):.1f} times as many entries as a Gaussian's lie "
        "beyond 4 standard deviations."
    )
    if nulls:
        likeliest = (
            f"{name.replace('_t', '-t')} {part:.0%}" for name, part in shares.items() if part
        )
        answer += f" The likeliest distributions: {', '.join(likeliest)}."
    return finding.answered(answer)


@cache
def _gaussian_band() -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest quantile of some Gaussian samples."""
    noise = torch.randn(20, SAMPLE, generator=torch.Generator().manual_seed(SEED)).numpy()
    quantiles = np.quantile(noise, SHARES, axis=1)
    return quantiles.min(axis=1), quantiles.max(axis=1)


def _beside_fits(title: str, block: int, sample: Sample, student: Fit) -> dict[Place, Sample]:
    """A matrix's histogram with a Gaussian's, and the Student-t, which has no block."""
    z = (EDGES[1:] + EDGES[:-1]) / 2
    own = replace(sample, null=np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi))
    if student.law is None:
        return {Place(title, block): own}
    fitted = Place(f"{title}, ν {min(student.nu, 999):.0f}")
    return {replace(fitted, block=block): own, fitted: Sample(EDGES, student.law.pdf(z))}


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
