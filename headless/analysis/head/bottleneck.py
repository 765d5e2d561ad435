"""How much of the loss's gradient passes the head on its way back to the states.

Shapes: V vocabulary, D hidden size, N tokens, M candidates of a softmax, R ranks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.head.lens import head_of, reading, ridged, text_of
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.errors import HeadlessError
from headless.geometry import ranks_of, singular_spectrum
from headless.objectives import LMHead
from headless.objectives.candidates import unique_targets

ROWS = 512  # tokens whose gradients are looked at
BATCH = 4096  # tokens whose targets are candidates of the contrastive loss
LOGITS = 2**25  # that exist at a time: of larger vocabularies fewer rows are looked at
FULL, RANDOM, CONTRASTIVE = (Place(k) for k in ("full", "random_columns", "contrastive"))
GODEY = "Godey and Artzi 2026, arXiv 2603.10145"
MEASURES = (
    Measure("lost", "share of the gradient's norm that is lost", null="lost_random"),
    Measure("kept", "share of the gradient's norm that passes", null="kept_random"),
    Measure("rank_logits", "effective rank of the logits' gradients"),
    Measure("rank_states", "effective rank of the states' gradients", null="rank_states_random"),
    Measure("candidates"),
)
LOST = {
    kind: values("lost", kind).reduced(f"{kind}:", lambda x: x[0])
    for kind in ("full", "contrastive")
}


@analysis(
    "bottleneck",
    title="The gradient's way back through the head",
    about=(
        "A loss has a gradient for every logit; the states get what the head's matrix passes. The "
        "logits' gradient has as many dimensions as there are candidates, the head's columns span "
        "as many as a state has: the rest, orthogonal to them, is lost. Kept and lost are norms "
        "over that of the whole gradient; their squares add up to 1. Three softmaxes over the "
        "model's own logits, of the same states: all of the vocabulary; as many columns drawn at "
        "random as the contrastive one has, with the token's own (the others' logits raised by "
        "log(V / M), so that the sum is that of all); and the contrastive one, over the distinct "
        f"targets of {BATCH:,} tokens. The null is a head with random columns of the same singular "
        "values. Effective ranks (Roy and Vetterli) are over the same tokens."
    ),
    needs={"text", "head", "causal"},
    states="last",
    cheap=True,
    figures=(
        by_rank(
            "bottleneck-spectra",
            "Singular values of the tokens' gradients at the states, over the largest, for a "
            "softmax over all of the vocabulary, over random columns and over the batch's targets. "
            "Dashed: through a head with random columns of the same singular values (null). "
            "Dotted: of the gradients at the logits.",
            Ranks("_spectra", null="random columns", start="at the logits"),
        ),
    ),
    claims=(
        Claim(
            GODEY,
            "The head loses 95 % or more of the norm of the logits' gradient",
            LOST["full"].formed(".1%") >= 0.95,
        ),
        Claim(
            "A prediction of this project",
            "A contrast among the batch's targets loses less of it than the whole softmax",
            LOST["contrastive"] < LOST["full"].less(0.01),
            kind="own",
        ),
    ),
)
def bottleneck(lab: Session, *, nulls: bool) -> Finding:
    """Of three losses on the same states and head."""
    head = head_of(lab)
    if head.softcap is not None or head.own_excess_V is not None:
        raise HeadlessError("its logits are not a product with a matrix: nothing is orthogonal")
    numbers: dict[Place, dict[str, float]] = {}
    spectra: dict[Place, Spectrum] = {}
    columns, noise = (torch.Generator().manual_seed(lab.seed + i) for i in range(2))
    for place, scored in losses(lab, head, columns):
        passed = through(scored)
        numbers[place] = passed.shares() | {
            "rank_states": ranks_of(passed.spectrum_R).effective,
            "candidates": float(scored.candidates),
        }
        others: list[Any] = [None, None]
        if nulls:
            null = through(scored.with_random_rows(noise))
            at_logits_R = singular_spectrum(scored.gradient_NM)
            numbers[place] |= {f"{k}_random": value for k, value in null.shares().items()}
            numbers[place]["rank_states_random"] = ranks_of(null.spectrum_R).effective
            numbers[place]["rank_logits"] = ranks_of(at_logits_R).effective
            others = [relative(null.spectrum_R), relative(at_logits_R)]
        spectra[place] = Spectrum(relative(passed.spectrum_R), *others)
    tokens, width = len(scored.gradient_NM), head.weight_VD.shape[1]
    numbers[Place()] = {"tokens": float(tokens), "width": float(width)}
    return Finding(series_of(numbers, MEASURES), {"_spectra": spectra}).answered(
        f"Of the norm of the logits' gradient {numbers[FULL]['lost']:.1%} is lost under the whole "
        f"softmax ({numbers[FULL]['candidates']:,.0f} candidates for {width} dimensions), "
        f"{numbers[RANDOM]['lost']:.1%} under one on {numbers[RANDOM]['candidates']:,.0f} random "
        f"columns, {numbers[CONTRASTIVE]['lost']:.1%} under the contrastive one on as many targets;"
        f" the states' gradients have effective ranks of {numbers[FULL]['rank_states']:.0f}, "
        f"{numbers[RANDOM]['rank_states']:.0f} and {numbers[CONTRASTIVE]['rank_states']:.0f} over "
        f"{tokens} tokens."
    )


def relative(values_R: Tensor) -> Any:
    """Over the largest."""
    return (values_R / values_R[:1].clamp(min=1e-300)).cpu().numpy()


@dataclass(frozen=True)
class Scored:
    """The gradient of a loss at its scores, and the rows that made them.

    A token's own row may be one that the others do not score: one that is not shared.
    """

    gradient_NM: Tensor  #: one column a candidate of any token
    rows_MD: Tensor
    shared_M: Tensor  #: which rows every token scores
    own_N: Tensor  #: the column of each token's target
    candidates: int  #: of a token

    def with_random_rows(self, draw: torch.Generator) -> "Scored":
        """The same gradient at random columns, which have the singular values of all rows."""
        rows_MD = self.rows_MD.double()
        values_D = torch.linalg.eigvalsh(rows_MD.T @ rows_MD).clamp(min=0).sqrt()
        noise_MD = torch.randn(rows_MD.shape, generator=draw).to(rows_MD)
        squares_D, axes_DD = torch.linalg.eigh(noise_MD.T @ noise_MD)
        alive_D = squares_D > 1e-9 * squares_D[-1]  # fewer rows than dimensions
        inverse_D = torch.where(alive_D, squares_D, 1.0).rsqrt() * alive_D
        return replace(self, rows_MD=noise_MD @ (axes_DD * inverse_D * values_D))


@dataclass(frozen=True)
class Passed:
    """What of a gradient passes a head."""

    kept: float  #: squares of what lies in the columns' space, over all tokens
    whole: float  #: of everything
    spectrum_R: Tensor  #: singular values of the states' gradients

    def shares(self) -> dict[str, float]:
        kept = min(1.0, self.kept / self.whole) if self.whole else math.nan
        return {"kept": kept**0.5, "lost": (1 - kept) ** 0.5}


def through(scored: Scored) -> Passed:
    """Of each token's gradient the part in the space of the columns of the rows that it scores.

    With states' gradients y = Wᵀ g that part has the square yᵀ (WᵀW)⁻¹ y; where the own row is
    another than the shared ones, WᵀW has w wᵀ more (Sherman and Morrison).
    """
    rows_MD = scored.rows_MD
    states_ND = (scored.gradient_NM @ rows_MD.to(scored.gradient_NM.dtype)).double()
    shared_CD = rows_MD[scored.shared_M].double()
    inverse_DD = torch.linalg.inv(ridged(shared_CD.T @ shared_CD))
    square_N = ((states_ND @ inverse_DD) * states_ND).sum(dim=1)
    alone_N = ~scored.shared_M[scored.own_N]
    if bool(alone_N.any()):
        own_ND = rows_MD[scored.own_N].double()
        cross_N = ((states_ND @ inverse_DD) * own_ND).sum(dim=1)
        more_N = 1 + ((own_ND @ inverse_DD) * own_ND).sum(dim=1)
        square_N = square_N - torch.where(alone_N, cross_N.square() / more_N, 0.0)
    whole = float(scored.gradient_NM.double().square().sum())
    return Passed(float(square_N.sum()), whole, singular_spectrum(states_ND))


def losses(lab: Session, head: LMHead, draw: torch.Generator) -> Iterator[tuple[Place, Scored]]:
    """The three softmaxes, one at a time: each has a matrix of gradients."""
    text_ST = text_of(lab)
    batch = max(1, min(len(text_ST), BATCH // max(1, text_ST.shape[1] - 1)))
    read = reading(lab, len(text_ST) * text_ST.shape[1])
    inside_N = read.sequences_N < batch
    most = min(ROWS, max(32, LOGITS // len(head.weight_VD)))
    rows_N = inside_N.nonzero().flatten()
    rows_N = rows_N[torch.linspace(0, len(rows_N) - 1, min(most, len(rows_N))).round().long()]
    weight_VD = head.weight_VD
    targets_N = read.next_N[rows_N].to(weight_VD.device)
    logits_NV = head.logits(read.states_ND[rows_N].to(weight_VD.device)).detach()
    ids_M = unique_targets(text_ST[:batch, 1:].flatten()).ids_M.to(weight_VD.device)
    vocab, number = len(weight_VD), len(ids_M)
    every_V = torch.ones(vocab, dtype=torch.bool, device=weight_VD.device)
    yield FULL, Scored(softmax_gradient(logits_NV, targets_N), weight_VD, every_V, targets_N, vocab)
    drawn_M = torch.randperm(vocab, generator=draw)[:number].to(weight_VD.device)
    yield RANDOM, sampled(logits_NV, targets_N, weight_VD, drawn_M)
    own_N = torch.searchsorted(ids_M, targets_N)
    gradient_NM = softmax_gradient(logits_NV[:, ids_M], own_N)
    yield (
        CONTRASTIVE,
        Scored(gradient_NM, weight_VD[ids_M], torch.ones_like(every_V[ids_M]), own_N, number),
    )


def softmax_gradient(logits_NM: Tensor, own_N: Tensor) -> Tensor:
    """Of each token's cross-entropy at its logits."""
    gradient_NM = logits_NM.softmax(dim=-1)
    gradient_NM[torch.arange(len(own_N), device=own_N.device), own_N] -= 1
    return gradient_NM


def sampled(logits_NV: Tensor, targets_N: Tensor, weight_VD: Tensor, drawn_M: Tensor) -> Scored:
    """A softmax over some columns and each token's own, whose sum estimates that of all."""
    vocab, number = len(weight_VD), len(drawn_M)
    ids_C = torch.cat([drawn_M, targets_N]).unique()
    shared_C = torch.isin(ids_C, drawn_M)
    own_N = torch.searchsorted(ids_C, targets_N)
    logits_NC = logits_NV[:, ids_C] + math.log(vocab / number)
    logits_NC[:, ~shared_C] = -torch.inf
    every_N = torch.arange(len(own_N), device=own_N.device)
    logits_NC[every_N, own_N] = logits_NV[every_N, targets_N]
    gradient_NC = softmax_gradient(logits_NC, own_N)
    return Scored(gradient_NC, weight_VD[ids_C], shared_C, own_N, number)
