"""Embedding tables and LM heads: expectation against reality, with and without the mean."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.record import MODEL, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session, rows_of
from headless.analysis.sources import TALK
from headless.analysis.weights.matrices import Decomposition, decompose
from headless.errors import HeadlessError
from headless.geometry import MarchenkoPastur, compare_with_noise, rank_law, ranks_of, tail_law

POSITIONS = ("wpe", "position_embeddings")
MEASURES = (
    Measure("first_share", null="first_share_shuffled"),
    Measure("_share", "σ₁²/Σσ² of what scores the tokens"),
    Measure("_centred", "the same without the mean row"),
    Measure("_shuffled", "the same of its shuffled entries"),
)
SHARE, CENTRED, SHUFFLED = (values(f"_{name}").only for name in ("share", "centred", "shuffled"))


@analysis(
    "weights",
    name="table_spectra",
    title="Singular values of embeddings and LM head",
    about=(
        "Tables with a row a token; where embeddings and head are one matrix it is shown once. "
        "Were rows to point everywhere alike, the singular values would be nearly equal, as those "
        "of the same entries shuffled are. One value far above the rest is a direction that all "
        "rows share: a cone, which subtracting the mean row takes away. `missing` is how many "
        "nats the spectrum is away from equal values."
    ),
    states="none",
    cheap=True,
    figures=(
        by_rank(
            "table-spectra",
            "Singular values over their rank. Expectation (dashed): the same entries shuffled. "
            "Reality: as it is, and without the mean row (dotted).",
            Ranks("{place}/raw", start="without the mean row"),
            film=("film-spectra", "Singular values of embeddings and head"),
        ),
    ),
    claims=(
        Claim(
            TALK,
            "One direction dominates the LM head, which random values would not do.",
            (SHARE >= 0.1) & (SHARE >= 10 * SHUFFLED),
        ),
        Claim(
            TALK,
            "The dominating direction is the mean: without it the head is no cone.",
            (CENTRED <= (1 / 3) * SHARE).given(SHARE >= 0.1, "asked where σ₁²/Σσ² is at least 0.1"),
        ),
    ),
)
def tables(lab: Session, *, nulls: bool) -> Finding:
    """Singular values of embeddings and head: raw, centred, shuffled and before training."""
    subject = lab.subject
    initial = subject.initial if nulls else None
    spectra = tables_of(subject.weights, subject.head_VD, initial, nulls=nulls)
    measured = {place: numbers(table) for place, table in spectra.items()}
    head = Place("head" if Place("head") in spectra else "embedding")
    scoring, known = measured[head], 1.0 if subject.has_head else float("nan")
    share, centred = scoring["first_share"], scoring["first_share_centred"]
    null = scoring.get("first_share_shuffled", float("nan"))
    asked = {"_share": known * share, "_centred": known * centred, "_shuffled": known * null}
    payloads: dict[str, dict[Place, Any]] = {
        f"{{place}}/{name}": {
            place: values_R.numpy()
            for place, table in spectra.items()
            if (values_R := getattr(table, f"{name}_R")) is not None
        }
        for name in ("centred", "shuffled", "start")
    }
    centred_R = payloads["{place}/centred"]
    payloads["{place}/raw"] = {
        place: replace(table.spectrum, start=centred_R[place]) for place, table in spectra.items()
    }
    what = "LM head" if head.kind == "head" else "embedding table"
    shuffled = f", {null:.1%} with entries shuffled" if nulls else ""
    return Finding(series_of(measured | {MODEL: asked}, MEASURES), payloads).answered(
        f"The strongest direction of the {what} holds {share:.1%} of its squared norm "
        f"({centred:.1%} without the mean row{shuffled}); its effective rank is "
        f"{scoring['effective_rank']:.0f} of {scoring['full_rank']:.0f}."
    )


def tables_of(
    backbone: nn.Module,
    head: Tensor | None = None,
    initial: nn.Module | None = None,
    *,
    nulls: bool = True,
) -> dict[Place, Decomposition]:
    """Embeddings, the head [V, D] where it is another matrix, learned positions if there are some.

    Raises:
        HeadlessError: the head is of another width, or the first tables of another shape.
    """
    weights = _weights(backbone)
    starts = _weights(initial) if initial is not None else {}
    embedding = weights["embedding"]
    if head is not None:
        if head.ndim != 2 or head.shape[1] != embedding.shape[1]:
            raise HeadlessError(
                f"a head of shape {list(head.shape)} does not read hidden states of width "
                f"{embedding.shape[1]}: give it as [vocabulary, width]"
            )
        if head.shape != embedding.shape or not torch.equal(head, embedding.to(head)):
            weights = {"embedding": embedding, "head": head.detach()} | weights
    for name, start in starts.items():
        if name in weights and start.shape != weights[name].shape:
            raise HeadlessError(
                f"the {name} table before training is {list(start.shape)}, after it "
                f"{list(weights[name].shape)}: give the first checkpoint of the same run"
            )
    first = {name: start[rows_of(start)] for name, start in starts.items()}
    return {
        Place(name): decompose(
            Place(name), weight[rows_of(weight)], first.get(name), nulls=nulls, center=True
        )
        for name, weight in weights.items()
    }


def _weights(backbone: nn.Module) -> dict[str, Tensor]:
    own: Any = backbone
    weights = {"embedding": own.get_input_embeddings().weight.detach()}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding) and name.split(".")[-1] in POSITIONS:
            weights["positions"] = module.weight.detach()
    return weights


def numbers(table: Decomposition) -> dict[str, float]:
    """Every measure of one table; ranks as they are, for tables share their width."""
    assert table.centred_R is not None
    raw, centred = ranks_of(table.values_R), ranks_of(table.centred_R)
    noise = compare_with_noise(table.values_R, MarchenkoPastur.of(table.shape, table.std))
    shares = {
        f"first_share_{name}": ranks_of(values_R).first_share
        for name, values_R in (("shuffled", table.shuffled_R), ("start", table.start_R))
        if values_R is not None
    }
    return shares | {
        "first_share": raw.first_share,
        "first_share_centred": centred.first_share,
        "effective_rank": raw.effective,
        "effective_rank_centred": centred.effective,
        "full_rank": raw.full,
        "stable_rank": raw.stable,
        "missing": raw.missing,
        "spectral_norm": float(table.values_R[0]),
        "rank_exponent": rank_law(table.values_R).exponent,
        "alpha": tail_law(table.values_R.square()).alpha,
        "above_noise": noise.above,
        "below_noise": noise.below,
    }
