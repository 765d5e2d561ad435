"""A "CAT scan" of every matrix: singular values, two power laws, effective ranks."""

import numpy as np
from torch import Tensor

from headless.analysis.claims import Claim, Number, share
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import Finding, Measure, mean, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.weights.matrices import (
    Decomposition,
    beside_shuffled,
    block_spectra,
    rank_numbers,
)
from headless.geometry import tail_law

MEASURES = (
    Measure("rank_exponent", null="rank_exponent_shuffled"),
    Measure("alpha", "tail exponent", null="alpha_shuffled"),
    Measure("effective_rank", null="effective_rank_shuffled"),
)


def _spread(finding: Finding) -> tuple[float, str]:
    """The largest relative spread of the rank exponents of a role over the blocks, and whose."""
    spreads = [
        (float(values.std() / abs(values.mean())), role)
        for role in finding.series["rank_exponent"].kinds
        if np.isfinite(values := finding.values("rank_exponent", role)).all() and len(values) > 1
    ]
    return max(spreads, default=(float("nan"), "any role"), key=lambda pair: pair[0])


CLAIMS = (
    Claim(
        CONJECTURE,
        "All weights' singular values decay as a power law, then fall off rapidly.",
        share(
            "matrices with R² of at least 0.95 and a knee:",
            lambda r_squared, knee: (r_squared >= 0.95) & (knee <= 1),
            "rank_r_squared",
            "knee",
        )
        >= 0.8,
    ),
    Claim(
        CONJECTURE,
        "The spectra of a role are nearly equal in most blocks.",
        Number(
            lambda f: f"standard deviation over the mean of the rank exponents of {_spread(f)[1]}",
            lambda f: _spread(f)[0],
        )
        <= 0.25,
    ),
    Claim(
        "Martin et al. 2021 (WeightWatcher)",
        "Tail exponents of well-trained layers lie between 2 and 6.",
        share("matrices in that range:", lambda alpha: (alpha >= 2) & (alpha <= 6), "alpha") >= 0.9,
    ),
)


@analysis(
    "weights",
    name="weight_spectra",
    title="Singular values of the weights",
    about=(
        "Every weight matrix stretches some directions more than others; its singular values, "
        "sorted, say by how much. Over their rank, with both axes logarithmic, a straight line is "
        "a power law σ_k ~ k^-b: b is fitted between 2 and 80 % of the ranks, and the knee is "
        "where the values fall below half of that line for good. The tail exponent α is another "
        "law, of the density of the largest eigenvalues σ² alone (Clauset's estimator). Effective "
        "ranks say how many directions are in use. The null is the same matrix with its entries "
        "shuffled, which has the same distribution of values and no directions: what it also shows "
        "is no structure."
    ),
    cheap=True,
    figures=(
        by_rank(
            "weight-spectra",
            "Singular values over their rank, one line a block (light: early, dark: late). Dashed: "
            "a middle block with its entries shuffled; dotted: the same block before training, "
            "where it was given.",
            Ranks("spectrum/{place}"),
            film=("film-weight-spectra", "Singular values of the weights by role"),
        ),
        by_depth(
            "weight-exponents",
            "Rank exponent and tail exponent by block; dashed: entries shuffled.",
            Panel("rank exponent b of σ_k ~ k^-b", ("rank_exponent",)),
            Panel("tail exponent α of p(σ²) ~ σ^-2α (shaded: 2 to 6)", ("alpha",), band=(2, 6)),
        ),
        by_depth(
            "weight-ranks",
            "Effective rank as a share of the whole, and the strongest direction's share of the "
            "squared norm; dashed: entries shuffled.",
            Panel(
                "effective rank, share of the full rank", ("effective_rank",), limits=(None, 1.02)
            ),
            Panel("strongest direction's share", ("first_share",), limits=(0, None)),
        ),
    ),
    claims=CLAIMS,
)
def spectra(lab: Session, *, nulls: bool) -> Finding:
    """Spectra, rank exponents, tail exponents and effective ranks of every matrix of the blocks."""
    matrices = {m.place: m for m in block_spectra(lab, nulls=nulls)}
    finding = Finding(
        series_of({place: numbers(m) for place, m in matrices.items()}, MEASURES, per_kind=True),
        {"spectrum/{place}": {place: m.spectrum for place, m in matrices.items()}},
    )
    answer = (
        f"Rank exponents are, on average over the blocks, {finding.by_kind('rank_exponent')}; the "
        f"matrices use {finding.by_kind('effective_rank')} of their rank"
    )
    if nulls:
        null = mean(finding.values("effective_rank_shuffled"))
        answer += f" ({null:.2f} with their entries shuffled)"
    return finding.answered(f"{answer}.")


def numbers(matrix: Decomposition) -> dict[str, float]:
    """Every measure of one matrix."""
    own = _laws(matrix.values_R)
    if matrix.shuffled_R is None:
        return own
    null = _laws(matrix.shuffled_R)
    return beside_shuffled(own, null, "rank_exponent", "alpha", "effective_rank")


def _laws(values_R: Tensor) -> dict[str, float]:
    tail = tail_law(values_R.square())
    return rank_numbers(values_R) | {
        "alpha": tail.alpha,
        "alpha_error": tail.standard_error,
        "tail_size": tail.count,
        "over_exponential": tail.exponential,
    }
