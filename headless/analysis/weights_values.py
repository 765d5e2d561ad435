"""Histograms of every matrix's entries: Gaussian, or heavier in the tails?"""

import math
from collections.abc import Sequence

import numpy as np

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE, WEIGHT_TAILS
from headless.analysis.weights_measure import (
    by_role,
    in_words,
    joined,
    role_arrays,
    role_means,
    share,
)
from headless.analysis.weights_shapes import SAMPLE, Values
from headless.analysis.weights_values_drawing import draw_histograms, draw_quantiles
from headless.geometry.gaussianity import TAIL_AT_4

NAME = "weight_values"
_ABOUT = (
    "The entries of a matrix begin as independent draws, mostly Gaussian ones. Excess kurtosis (0 "
    "for a Gaussian, 3 for a Laplace distribution) and the tail ratio (how many more entries lie "
    "beyond 4 standard deviations than a Gaussian has there) say whether training made some of "
    "them large; so does which of four distributions fits best: Gaussian, logistic, Laplace or "
    "Student-t, whose degrees of freedom ν are small for heavy tails. Millions of entries reject "
    "every test, so these are sizes of effects. Moments are of all entries; distributions and "
    f"Kolmogorov's distance of {SAMPLE:,} drawn at random. The null is a Gaussian sample of that "
    "size."
)


def moment_tables(values: Sequence[Values]) -> dict[str, dict[str, np.ndarray]]:
    """Every measure of all entries, by role, over the blocks [L]; no fits."""
    tables = {
        "excess_kurtosis": by_role(values, lambda v: v.moments.excess_kurtosis),
        "tail_ratio": by_role(values, lambda v: v.moments.tail_ratio),
        "skew": by_role(values, lambda v: v.moments.skew),
        "std": by_role(values, lambda v: v.moments.std),
        "mean": by_role(values, lambda v: v.moments.mean),
        "largest": by_role(values, lambda v: v.moments.largest),
        "count": by_role(values, lambda v: v.moments.count),
    }
    if all(v.start for v in values):
        tables["excess_kurtosis_start"] = by_role(
            values, lambda v: v.start.excess_kurtosis if v.start else math.nan
        )
    return tables


def values_finding(values: Sequence[Values]) -> Finding:
    """Moments, tails and the best fitting distribution of every matrix's entries."""
    tables = moment_tables(values) | {
        "gaussian_distance": by_role(values, lambda v: v.distance),
        "nu": by_role(values, lambda v: v.fits["student_t"].nu),
    }
    for name in values[0].fits:
        tables[f"log_likelihood/{name}"] = _likelihoods(values, name)
    best = [v.best for v in values]
    winners = {name: best.count(name) / len(best) for name in values[0].fits}
    kurtosis, tail = joined(tables["excess_kurtosis"]), joined(tables["tail_ratio"])
    told = ", ".join(
        f"{name.replace('_t', '-t')} {part:.0%}" for name, part in winners.items() if part
    )
    arrays = role_arrays({k: t for k, t in tables.items() if not k.startswith("log_likelihood")})
    arrays |= {f"density/{v.role}/{v.block:02d}": v.density_K for v in values}
    arrays |= {f"quantiles/{v.role}/{v.block:02d}": v.quantiles_Q for v in values}
    return Finding(
        name=NAME,
        title="Values of the weights",
        about=_ABOUT,
        answer=(
            f"Mean excess kurtosis is {in_words(tables['excess_kurtosis'], 1)} (largest "
            f"{kurtosis.max():.1f}; a Gaussian has 0); in the median matrix "
            f"{np.median(tail):.1f} times as many entries as a Gaussian's lie beyond 4 standard "
            f"deviations. The likeliest distributions: {told}."
        ),
        scalars={f"{NAME}/best/{name}": part for name, part in winners.items()}
        | role_means(NAME, tables),
        arrays=arrays,
        pictures=(
            Picture(
                "weight-values",
                "Histogram of the standardised entries of a middle block, logarithmic, with the "
                "Gaussian null (line) and the fitted Student-t (dashed).",
                lambda: draw_histograms(values),
            ),
            Picture(
                "weight-quantiles",
                "Left: quantiles of the entries of a middle block over those of a Gaussian, which "
                "lies on the straight line; the grey band is where Gaussian samples of the same "
                "size lie. Right: excess kurtosis of every matrix.",
                lambda: draw_quantiles(values, tables["excess_kurtosis"]),
            ),
        ),
        claims=_claims(kurtosis, tail, best, tables),
    )


def _likelihoods(values: Sequence[Values], name: str) -> dict[str, np.ndarray]:
    return by_role(values, lambda v: v.fits[name].log_likelihood)


def _claims(
    kurtosis: np.ndarray,
    tail: np.ndarray,
    best: Sequence[str],
    tables: dict[str, dict[str, np.ndarray]],
) -> tuple[Claim, ...]:
    # Of a small matrix a Gaussian has less than one entry there: three more are chance.
    chance = 3 / (TAIL_AT_4 * joined(tables["count"]))
    near = share((np.abs(kurtosis) <= 0.5) & (tail <= 3 + chance))
    heavy = share(np.array([name != "gaussian" for name in best]) & (kurtosis >= 1))
    start = joined(tables["excess_kurtosis_start"]) if "excess_kurtosis_start" in tables else None
    odd = start is not None and abs(np.median(start)) > 0.1
    text = "the weights before training are needed"
    if start is not None:
        text = (
            f"median absolute excess kurtosis before {np.median(np.abs(start)):.2f}, now "
            f"{np.median(np.abs(kurtosis)):.2f}"
        )
        text += ": at most half of it" if odd else "; they began as a Gaussian"
    return (
        Claim(
            CONJECTURE,
            "Weights are nearly Gaussian, without outliers.",
            near >= 0.8,
            f"{near:.0%} of the matrices have an excess kurtosis within ±0.5 and at most 3 times a "
            "Gaussian's entries (and 3 more) beyond 4 standard deviations; at least 80 %",
            contested=WEIGHT_TAILS,
        ),
        Claim(
            "Conjecture 2023, part 2 (Pythia over training)",
            "Weights pass from a Gaussian to heavy tails.",
            heavy >= 0.5,
            f"{heavy:.0%} of the matrices have an excess kurtosis of at least 1 and are fitted "
            "best by a distribution with heavier tails; at least half",
            contested=WEIGHT_TAILS,
        ),
        Claim(
            CONJECTURE,
            "Weights that begin with another distribution become Gaussian (asked, not answered).",
            bool(np.median(np.abs(kurtosis)) <= np.median(np.abs(start)) / 2)
            if start is not None and odd
            else None,
            text,
        ),
    )
