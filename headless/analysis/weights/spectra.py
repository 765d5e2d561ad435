"""Singular values of matrices, of how far training moved them, and of the heads' circuits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Number, share
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import Finding, Measure, Place, Spectrum, mean, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import block_matrices
from headless.analysis.weights.matrices import (
    Decomposition,
    beside_shuffled,
    block_spectra,
    decompose,
    paired,
    pairs,
    rank_numbers,
    shuffled,
)
from headless.geometry import tail_law

EXPONENTS = ("rank_exponent", "alpha", "effective_rank")  # that stand beside the shuffled ones
MEASURES = (
    Measure("rank_exponent", null="rank_exponent_shuffled"),
    Measure("alpha", "tail exponent", null="alpha_shuffled"),
    Measure("effective_rank", null="effective_rank_shuffled"),
)
MOVED = ("effective_rank", "first_share", "rank_exponent")  # measures of the difference
CIRCUITS = ("qk", "ov")
IN_CIRCUITS = ("rank_exponent", "effective_rank", "stable_rank", "first_share")
PAIRED = ("effective_rank", "first_share")


def _spread(finding: Finding) -> tuple[float, str]:
    """The largest relative spread of the rank exponents of a role over the blocks, and whose."""
    spreads = [
        (float(values.std() / abs(values.mean())), role)
        for role in finding.series["rank_exponent"].kinds
        if np.isfinite(values := finding.values("rank_exponent", role)).all() and len(values) > 1
    ]
    return max(spreads, default=(float("nan"), "any role"), key=lambda pair: pair[0])


@analysis(
    "weights",
    name="weight_spectra",
    title="Singular values of the weights",
    about=(
        "Singular values say by how much a matrix stretches directions. Over their rank, both "
        "axes logarithmic, a straight line is a power law σ_k ~ k^-b, fitted between 2 and 80 % "
        "of the ranks; the knee is where the values fall below half of it for good. The tail "
        "exponent α is of the density of the largest σ² alone (Clauset's estimator). The null is "
        "the same matrix with its entries shuffled: what it also shows is no structure."
    ),
    needs={"parts"},
    states="none",
    cheap=True,
    figures=(
        by_rank(
            "weight-spectra",
            "Singular values over their rank. Dashed: a middle block with its entries shuffled; "
            "dotted: the same block before training, where it was given.",
            Ranks("spectrum/{place}"),
            film=("film-weight-spectra", "Singular values of the weights by role"),
        ),
        by_depth(
            "weight-exponents",
            "Exponents, effective rank and the strongest direction's share of the squared norm, by "
            "block; dashed: entries shuffled.",
            Panel("rank exponent b of σ_k ~ k^-b", ("rank_exponent",)),
            Panel("tail exponent α of p(σ²) ~ σ^-2α", ("alpha",)),
            Panel(
                "effective rank, share of the full rank", ("effective_rank",), limits=(None, 1.02)
            ),
            Panel("strongest direction's share", ("first_share",), limits=(0, None)),
        ),
    ),
    claims=(
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
                lambda f: f"standard deviation over mean of the rank exponents of {_spread(f)[1]}",
                lambda f: _spread(f)[0],
            )
            <= 0.25,
        ),
        Claim(
            "Martin et al. 2021 (WeightWatcher)",
            "Tail exponents of well-trained layers lie between 2 and 6.",
            share("matrices in that range:", lambda alpha: (alpha >= 2) & (alpha <= 6), "alpha")
            >= 0.9,
        ),
    ),
)
def spectra(lab: Session, *, nulls: bool) -> Finding:
    """Spectra, rank exponents, tail exponents and effective ranks of every matrix of the blocks."""
    matrices = {m.place: m for m in block_spectra(lab, nulls=nulls)}
    numbers = {}
    for place, m in matrices.items():
        numbers[place] = _laws(m.values_R)
        if m.shuffled_R is not None:
            numbers[place] = beside_shuffled(numbers[place], _laws(m.shuffled_R), *EXPONENTS)
    finding = Finding(
        series_of(numbers, MEASURES, per_kind=True),
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


def _laws(values_R: Tensor) -> dict[str, float]:
    tail = tail_law(values_R.square())
    return rank_numbers(values_R) | {
        "alpha": tail.alpha,
        "alpha_error": tail.standard_error,
        "tail_size": tail.count,
        "over_exponential": tail.exponential,
    }


@analysis(
    "weights",
    name="weight_movement",
    title="Movement of the weights since the beginning",
    about=(
        "The norm of the difference between a matrix now and before training, relative to the "
        "beginning's (0: it did not move; 1: as far as it was from zero), and the cosine between "
        "the two. The singular values of the difference say whether training moved a few "
        "directions or all of them; the null, its entries shuffled, moves all."
    ),
    states="none",
    cheap=True,
    figures=(
        by_depth(
            "weight-movement",
            "Distance from the beginning relative to its norm, and the difference's effective rank "
            "(dashed: entries shuffled), by block.",
            Panel("relative distance from the beginning", ("distance",), limits=(0, None)),
            Panel(
                "effective rank of the difference, share of all",
                ("effective_rank",),
                limits=(None, 1.02),
            ),
        ),
        by_rank(
            "weight-movement-spectra",
            "Singular values of the difference; dashed: a middle block's, its entries shuffled.",
            Ranks("spectrum/{place}"),
        ),
    ),
)
def movement(lab: Session, *, nulls: bool) -> Finding | None:
    """Distance, cosine and, with nulls, spectrum of each matrix's difference from its beginning."""
    if lab.subject.initial is None:
        return None
    numbers, changes = movements_of(lab.subject.weights, lab.subject.initial, spectra=nulls)
    series = series_of(numbers, paired(MOVED[0]), per_kind=True)
    drawn = {place: change.spectrum for place, change in changes.items()}
    finding = Finding(series, {"spectrum/{place}": drawn} if drawn else {})
    answer = (
        f"Relative distances are {finding.by_kind('distance')}, cosines with the beginning "
        f"{finding.by_kind('cosine')}."
    )
    if nulls:
        used, null = (mean(finding.values(f"effective_rank{kind}")) for kind in ("", "_shuffled"))
        answer += f" The difference uses {used:.2f} of its rank (shuffled: {null:.2f})."
    return finding.answered(answer)


def movements_of(
    backbone: nn.Module, initial: nn.Module, *, spectra: bool = True
) -> tuple[dict[Place, dict[str, float]], dict[Place, Decomposition]]:
    """Every measure of W_t - W_0, and its spectrum, of every matrix of every block."""
    numbers, changes = {}, {}
    for matrix, start in pairs(backbone, initial):
        assert start is not None
        place = Place(matrix.role, matrix.block)
        now, before = matrix.weight.double(), start.weight.double().to(matrix.weight.device)
        norms = torch.linalg.matrix_norm(torch.stack([now, before, now - before]))
        numbers[place] = {
            "distance": float(norms[2] / norms[1]),
            "cosine": float((now * before).sum() / norms[0] / norms[1]),
        }
        if spectra:
            changes[place] = one = decompose(place, now - before, nulls=True)
            assert one.shuffled_R is not None
            own, null = rank_numbers(one.values_R), rank_numbers(one.shuffled_R)
            numbers[place] |= beside_shuffled({n: own[n] for n in MOVED}, null, MOVED[0])
    return numbers, changes


@analysis(
    "weights",
    name="head_circuits",
    title="Circuits of the attention heads",
    about=(
        "A head compares tokens through one product of its matrices, W_Qᵀ W_K (QK), and moves what "
        "it finds through another, W_O W_V (OV), of no higher rank than the head's width. With "
        "rotary positions QK is that of two tokens at the same place; norms, gains and biases are "
        "left out. The null multiplies the same matrices with their entries shuffled."
    ),
    states="none",
    figures=(
        by_rank(
            "head-circuits",
            "Singular values over the largest one, the mean of each block's heads; dashed: a "
            "middle block's with entries shuffled.",
            Ranks("_spectra/{place}", y="over the largest"),
        ),
        by_depth(
            "head-circuit-ranks",
            "Effective rank as a share of the width, the mean of a block's heads; dashed: entries "
            "shuffled.",
            Panel("", ("effective_rank",), limits=(0, 1.02)),
            wide=False,
        ),
    ),
)
def circuits(lab: Session, *, nulls: bool) -> Finding:
    """Effective ranks, strongest directions and exponents of QK and OV, head by head."""
    heads = circuits_of(lab.subject.weights)
    measured = {
        place: [
            beside_shuffled({n: own[n] for n in IN_CIRCUITS}, null, *PAIRED)
            for own, null in (map(rank_numbers, pair) for pair in zip(own_HR, null_HR, strict=True))
        ]
        for place, (own_HR, null_HR) in heads.items()
    }
    means = {
        place: {name: mean(np.array([one[name] for one in every])) for name in every[0]}
        for place, every in measured.items()
    }
    drawn = {place: Spectrum(*map(_relative, pair)) for place, pair in heads.items()}
    finding = Finding(series_of(means, paired(*PAIRED), per_kind=True), {"_spectra/{place}": drawn})
    width = next(iter(heads.values()))[0].shape[-1]
    used = [
        f"{kind.upper()} circuits use {mean(finding.values('effective_rank', kind)):.2f} of their "
        f"{width} directions ({mean(finding.values('effective_rank_shuffled', kind)):.2f})"
        for kind in CIRCUITS
    ]
    return finding.answered(f"On average {used[0]}, {used[1]}; in brackets with entries shuffled.")


def circuits_of(backbone: nn.Module) -> dict[Place, tuple[Tensor, Tensor]]:
    """Singular values [heads, head width] of each block's QK and OV, and those of the null.

    Grouped keys and values are used by several heads.
    """
    config: Any = backbone.config
    by_block: dict[int, dict[str, Tensor]] = {}
    for matrix in block_matrices(backbone):
        by_block.setdefault(matrix.block, {})[matrix.role] = matrix.weight
    circuits = {}
    for block, parts in by_block.items():
        null = {role: shuffled(parts[role], seed=i) for i, role in enumerate("qkvo")}
        for kind in CIRCUITS:
            own, random = (_circuit(kind, w, config.num_attention_heads) for w in (parts, null))
            circuits[Place(kind, block)] = own, random
    return circuits


def _relative(values_HR: Tensor) -> np.ndarray:
    """Mean over the heads [R] of singular values over each head's largest."""
    return (values_HR / values_HR[:, :1].clamp(min=1e-300)).mean(dim=0).numpy()


def _circuit(kind: str, parts: dict[str, Tensor], heads: int) -> Tensor:
    """By QR of the two factors."""
    first, second = ("q", "k") if kind == "qk" else ("o", "v")
    left = parts[first] if first == "q" else parts[first].T
    width = left.shape[0] // heads
    left_HSD = left.double().reshape(heads, width, -1)
    right_GSD = parts[second].double().reshape(-1, width, parts[second].shape[1])
    right_HSD = right_GSD.repeat_interleave(heads // right_GSD.shape[0], dim=0)
    left_R, right_R = (torch.linalg.qr(x.mT, mode="r").R for x in (left_HSD, right_HSD))
    return torch.linalg.svdvals(left_R @ right_R.mT).cpu()
