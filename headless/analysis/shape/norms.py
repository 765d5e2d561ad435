"""Norms of states by layer and position, and what the first position is."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Criterion, values
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import STREAM, Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import PAPER
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST
from headless.analysis.states.capture import Point, evaluating, middle_blocks, states_at
from headless.analysis.states.families import backbone_of
from headless.analysis.states.reservoirs import by_place
from headless.errors import HeadlessError
from headless.geometry import growth
from headless.geometry.growth import MARGIN, RISES
from headless.models.backbone import is_custom

MASSIVE = 10.0  # first position's norm over the others' from which on it is called massive
ALONE = 256  # tokens that are looked at one by one
SINK_TEXTS = 4  # sequences whose attention is looked at
MEASURES = (
    Measure("rest", "other positions"),
    Measure("first", "position 0"),
    Measure("first_over_rest", "position 0's norm over that of other positions"),
    Measure("_step", "largest step of position 0's norm over a block, of its largest norm"),
    Measure("_by_mlp", "norm that the MLP adds there"),
    Measure("_by_attention", "that attention does"),
    Measure("massive_share", f"share of single tokens {MASSIVE:g} times as long as others"),
)
SINK = (Measure("", "attention to position 0", null="_even"),)


def _law_words(f: Finding) -> str:
    law = growth(f.values("rest", "post"))
    if law is None:
        return "needs five blocks"
    unsure = "; too close to tell" if law.exponential is None else ""
    return (
        f"R² of the log norm {law.exponential_r2:.3f} with a factor a block ({law.factor:.3f}, "
        f"above 1), {law.linear_r2:.3f} with an amount a block; the better one at least {RISES:g}, "
        f"AIC better by {law.evidence:.1f} with a factor, at least {MARGIN:g}{unsure}"
    )


def _exponential(f: Finding) -> bool | None:
    law = growth(f.values("rest", "post"))
    return None if law is None else law.exponential


IS_MASSIVE = values("first_over_rest").only.formed(".1f") >= MASSIVE
CLAIMS = (
    Claim(
        PAPER, "position 0 has a far larger norm than all others in the middle blocks", IS_MASSIVE
    ),
    Claim(
        PAPER,
        "its norm arises in the MLP of one block (2 in GPT-2 and LLaMA-7B)",
        (
            (values("_step").only.formed(".0%") >= 0.5)
            & (values("_by_mlp").only > values("_by_attention").only)
        ).given(IS_MASSIVE),
    ),
    Claim(
        PAPER,
        "and falls before the end",
        (
            values("first", "post")
            .reduced("last over largest norm of", lambda x: x[-1] / x.max())
            .formed(".0%")
            <= 0.6
        ).given(IS_MASSIVE),
    ),
    Claim(
        "Heimersheim and Turner 2023",
        "the norm of the residual stream grows exponentially with depth",
        Criterion(_exponential, _law_words),
    ),
    Claim(
        PAPER,
        "most tokens do it at position 0, not only the one that begins texts",
        values("massive_share").only.formed(".0%") >= 0.5,
        asked=lambda f: len(f.values("massive_share")) > 0,
    ),
)


@analysis(
    "norms",
    title="How long are the states, and what is position 0?",
    about=(
        "The length of the states. In many decoders the state at position 0 is hundreds of "
        "times as long as all others, whichever token stands there: attention that has nothing "
        "to look at looks there (an attention sink). By layer the mean runs over all other "
        "positions; by position over the middle blocks (a sixth to three quarters of the "
        "depth). To see whether it is the place or the token, tokens of the vocabulary are "
        "given alone. The null is the spread of the ordinary positions: a first position like "
        "any other has the ratio 1."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        by_depth(
            "norms-by-layer",
            "Mean norm along the residual stream, of position 0 and of all others, and of what "
            "attention and MLPs add at all others.",
            Panel("residual stream", ("rest", "first"), STREAM, "mean norm", "y"),
            Panel("added at other positions", ("rest",), ("attn", "mlp"), log="y"),
        ),
        by_rank(
            "norms-by-position",
            "Mean norm by position, over the middle blocks. Between dashed and dotted lie 98 % of "
            "the positions but the first: what an ordinary position looks like.",
            Ranks(
                "_by_position",
                "position, from 1",
                "mean norm",
                null="1 % of ordinary positions lie below",
                start="1 % above",
            ),
            wide=False,
        ),
        by_depth(
            "attention-sink",
            "Attention paid to position 0 by all later positions, mean over heads; dashed: "
            "what attention spread evenly would pay (null).",
            Panel("", ("",), y="attention to position 0", limits=(0.0, 1.0)),
            wide=False,
        ),
    ),
    claims=CLAIMS,
)
def norms(lab: Session, *, nulls: bool) -> Finding:
    """Mean norms by layer and by position, and what the first position does."""
    measured = by_place(lab.statistics)
    numbers: dict[Place, dict[str, float]] = {}
    for place, s in measured.items():
        first, rest = moments.mean_norm(s, FIRST), moments.mean_norm(s)
        numbers[place] = {"first": first, "rest": rest, "ratio": first / rest}
    posts = {p.block: s for p, s in measured.items() if p.kind == "post" and p.block is not None}
    middle = middle_blocks(posts)
    profiles = [posts[block].position_norm_T / posts[block].position_count_T for block in middle]
    profile_T = torch.stack(profiles).mean(dim=0).numpy()
    others = profile_T[1:][np.isfinite(profile_T[1:])]
    grown = [moments.mean_norm(posts[block]) for block in (middle if len(middle) > 1 else posts)]
    whole = numbers[Place()] = {
        "first_over_rest": float(profile_T[0] / others.mean()),
        "growth": (grown[-1] / grown[0]) ** (1 / (len(grown) - 1)) if len(grown) > 1 else np.nan,
    }
    whole |= _largest_step(numbers)
    positions = np.arange(1, len(profile_T) + 1)
    low, high = (np.full(len(positions), np.quantile(others, share)) for share in (0.01, 0.99))
    payloads: dict[str, dict[Place, Any]] = {
        "by_position": {Place(): profile_T},
        "_by_position": {Place(): Spectrum(profile_T, low, high, at=positions)},
    }
    sink = {}
    if nulls:
        draw = torch.Generator().manual_seed(lab.seed)
        tokens_N = torch.randperm(len(lab.whole_tables["embedding"]), generator=draw)[:ALONE]
        alone_N = token_norms(lab.subject.model, tokens_N, middle).mean(dim=0).numpy()
        payloads["alone"] = {Place(): alone_N}
        massive = float(np.mean(alone_N >= MASSIVE * others.mean()))
        numbers[Place("alone")] = {"massive_share": massive}
    if nulls and lab.is_causal and not is_custom(lab.subject.backbone):
        rows = [row[None] for row in lab.sequences[:SINK_TEXTS]]
        even = float(np.mean(1 / np.arange(2, len(profile_T) + 1)))
        sink = {
            Place("sink", block): {"": value, "_even": even}
            for block, value in enumerate(sink_strength(lab.subject.model, rows).tolist())
        }
    finding = Finding(series_of(numbers, MEASURES) | series_of(sink, SINK), payloads)
    return finding.answered(_answer(finding, whole["first_over_rest"], whole["growth"]))


def _largest_step(numbers: dict[Place, dict[str, float]]) -> dict[str, float]:
    """Of position 0's norm from block to block, and who adds there, where that was measured."""
    first = {place: own["first"] for place, own in numbers.items() if "first" in own}
    posts = [place for place in first if place.kind == "post"]
    norms = [first.get(Place("embed"), 0.0), *(first[place] for place in posts)]
    block = posts[int(np.diff(norms).argmax())].block
    return {
        "_step": float(np.diff(norms).max() / max(norms[1:])),
        "_by_mlp": first.get(Place("mlp", block), np.nan),
        "_by_attention": first.get(Place("attn", block), np.nan),
    }


def _answer(finding: Finding, ratio: float, grown: float) -> str:
    rest = finding.values("rest", "post")
    answer = (
        f"In the middle blocks position 0 is {ratio:.1f} times as long as other positions: "
        f"{'massive' if ratio >= MASSIVE else 'not massive'} (from {MASSIVE:g} on). Other "
        f"positions go from {rest[0]:.3g} after the first block to {rest[-1]:.3g} after the "
        f"last, by a factor of {grown:.3f} a block in the middle."
    )
    for share in finding.values("massive_share"):
        answer += f" Of single tokens put there {share:.0%} become massive."
    return answer


def token_norms(model: nn.Module, tokens_N: Tensor, blocks: Sequence[int]) -> Tensor:
    """The norm of each token's state when it is alone, after some blocks [L, N]."""
    states = states_at(model, tokens_N[:, None], [Point("post", block) for block in blocks])
    return torch.stack([x_NTD[:, 0].double().norm(dim=-1).cpu() for x_NTD in states.values()])


@torch.no_grad()
def sink_strength(model: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Attention to position 0 from all later positions, by block [L]: mean over heads.

    The model computes attention in the plain way for this pass, since faster ways keep no weights.
    """
    backbone: Any = backbone_of(model)
    before, paid_LB = backbone.config._attn_implementation, []
    try:
        backbone.set_attn_implementation("eager")
        with evaluating(backbone):
            for ids_BT in batches:
                ids_BT = ids_BT.to(next(backbone.parameters()).device)
                weights = backbone(input_ids=ids_BT, output_attentions=True).attentions
                if not weights or weights[0] is None:
                    raise HeadlessError("this model gives no attention weights: leave out the sink")
                paid = [w[:, :, 1:, 0].double().mean(dim=(1, 2)).cpu() for w in weights]
                paid_LB.append(torch.stack(paid))
    finally:
        backbone.set_attn_implementation(before)
    return torch.cat(paid_LB, dim=1).mean(dim=1)
