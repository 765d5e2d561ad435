"""Norms of states by layer and position, and what the first position is."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Criterion, values
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank, density
from headless.analysis.record import (
    STREAM,
    Finding,
    Measure,
    Place,
    Sample,
    Spectrum,
    series_of,
)
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import PAPER
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, Statistics
from headless.analysis.states.capture import Point, evaluating, middle_blocks, states_at
from headless.analysis.states.families import backbone_of
from headless.analysis.states.reservoirs import by_place
from headless.errors import HeadlessError
from headless.geometry import growth
from headless.geometry.growth import MARGIN, RISES

MASSIVE = 10.0  # first position's norm over the others' from which on it is called massive
ALONE = 256  # tokens that are looked at one by one
SINK_TEXTS = 4  # sequences whose attention is looked at
MEASURES = (
    Measure("rest", "other positions"),
    Measure("first", "position 0"),
    Measure("first_over_rest", "position 0's norm over that of other positions"),
    Measure("massive_share", f"share of single tokens {MASSIVE:g} times as long as others"),
)
SINK = (Measure("", "attention to position 0", null="_even"),)


def _step(f: Finding) -> tuple[float, int, float, float]:
    """The largest step of position 0's norm over its largest norm, where, and who adds there."""
    first, embed = f.values("first", "post"), f.values("first", "embed")
    steps = np.diff(first, prepend=embed if len(embed) else 0.0)
    at = int(steps.argmax())
    by_mlp, by_attention = (
        x[at] if len(x := f.values("first", kind)) else np.nan for kind in ("mlp", "attn")
    )
    block = f.series["first"].at("post").places[at].block or 0
    return steps.max() / first.max(), block, by_mlp, by_attention


def _in_the_mlp(f: Finding) -> bool:
    jump, _, by_mlp, by_attention = _step(f)
    return bool(jump >= 0.5 and by_mlp > by_attention)


def _step_words(f: Finding) -> str:
    jump, block, by_mlp, by_attention = _step(f)
    return (
        f"the largest step, at block {block}, is {jump:.0%} of the largest norm, at least 50%; "
        f"the MLP adds {by_mlp:.3g} there, more than attention ({by_attention:.3g})"
    )


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
        Criterion(_in_the_mlp, _step_words).given(IS_MASSIVE),
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
        "The length of the states. In many decoders the state at position 0 is hundreds of times "
        "as long as all others, whichever token stands there: attention that has nothing to look "
        "at looks there (an attention sink). So position 0 is kept apart everywhere. By layer the "
        "mean runs over all other positions; by position over the middle blocks (a sixth to three "
        "quarters of the depth). To see whether it is the place or the token, tokens of the "
        "vocabulary are given alone, each as a sequence of one. The null is the spread of the "
        "ordinary positions: a first position like any other has the ratio 1."
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
        density(
            "norms-alone",
            "Norms in the middle blocks of single tokens at position 0, over the vocabulary; "
            "filled: of the positions of texts but the first.",
            "_alone",
            x="norm in the middle blocks",
            y="tokens",
            log="x",
            null="positions of texts but the first",
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
    numbers = {place: point_numbers(s) for place, s in measured.items()}
    posts = {p.block: s for p, s in measured.items() if p.kind == "post" and p.block is not None}
    middle = middle_blocks(posts)
    profiles = [posts[block].position_norm_T / posts[block].position_count_T for block in middle]
    profile_T = torch.stack(profiles).mean(dim=0).numpy()
    others = profile_T[1:][np.isfinite(profile_T[1:])]
    ratio, usual = float(profile_T[0] / others.mean()), others.mean()
    grown = [moments.mean_norm(posts[block]) for block in (middle if len(middle) > 1 else posts)]
    numbers[Place()] = {
        "first_over_rest": ratio,
        "first_over_largest_other": float(profile_T[0] / others.max()),
        "growth": (grown[-1] / grown[0]) ** (1 / (len(grown) - 1)) if len(grown) > 1 else np.nan,
    }
    payloads: dict[str, dict[Place, Any]] = {
        "by_position": {Place(): profile_T},
        "_by_position": {Place(): _profile(profile_T)},
    }
    sink = {}
    if nulls:
        alone_N = _alone(lab, middle)
        payloads["alone"] = {Place(): alone_N}
        payloads["_alone"] = {Place(): _histogram(alone_N, others)}
        numbers[Place("alone")] = {
            "median_ratio": float(np.median(alone_N) / usual),
            "massive_share": float(np.mean(alone_N >= MASSIVE * usual)),
        }
        if lab.is_causal:
            rows = [row[None] for row in lab.sequences[:SINK_TEXTS]]
            even = _even_attention(next(iter(posts.values())))
            sink = {
                Place("sink", block): {"": value, "_even": even}
                for block, value in enumerate(sink_strength(lab.subject.model, rows).tolist())
            }
    finding = Finding(series_of(numbers, MEASURES) | series_of(sink, SINK), payloads)
    rest = finding.values("rest", "post")
    answer = (
        f"In the middle blocks position 0 is {ratio:.1f} times as long as other positions: "
        f"{'massive' if ratio >= MASSIVE else 'not massive'} (from {MASSIVE:g} on). Other "
        f"positions grow from {rest[0]:.3g} after the first block to {rest[-1]:.3g} after the "
        f"last, by a factor of {numbers[Place()]['growth']:.3f} a block in the middle."
    )
    if nulls:
        share = numbers[Place("alone")]["massive_share"]
        answer += f" Of single tokens put there {share:.0%} become massive."
    return finding.answered(answer)


def _profile(profile_T: np.ndarray) -> Spectrum:
    low, high = np.nanquantile(profile_T[1:], [0.01, 0.99])
    positions = np.arange(1, len(profile_T) + 1)
    null, start = (np.full(len(positions), x) for x in (low, high))
    return Spectrum(profile_T, null, start, at=positions)


def point_numbers(s: Statistics) -> dict[str, float]:
    first, rest = moments.mean_norm(s, FIRST), moments.mean_norm(s)
    return {"first": first, "rest": rest, "ratio": first / rest}


def _alone(lab: Session, middle: list[int]) -> np.ndarray:
    """Mean norms over the middle blocks of some tokens of the vocabulary [N], each alone."""
    generator = torch.Generator().manual_seed(lab.seed)
    tokens_N = torch.randperm(len(lab.tables["embedding"]), generator=generator)[:ALONE]
    return token_norms(lab.subject.model, tokens_N, middle).mean(dim=0).numpy()


def token_norms(model: nn.Module, tokens_N: Tensor, blocks: Sequence[int]) -> Tensor:
    """The norm of each token's state when it is alone, after some blocks [L, N]."""
    states = states_at(model, tokens_N[:, None], [Point("post", block) for block in blocks])
    return torch.stack([x_NTD[:, 0].double().norm(dim=-1).cpu() for x_NTD in states.values()])


def _histogram(alone_N: np.ndarray, others: np.ndarray) -> Sample:
    both = np.concatenate([alone_N, others])
    edges = np.geomspace(both.min() / 1.3, both.max() * 1.3, 50)
    counts, null = (np.histogram(x, edges)[0].astype(float) for x in (alone_N, others))
    return Sample(edges, counts, null * len(alone_N) / len(others))


def _even_attention(s: Statistics) -> float:
    count_T = s.position_count_T.numpy()
    seen = np.arange(2, len(count_T) + 1)
    return float((count_T[1:] / seen).sum() / count_T[1:].sum())


@torch.no_grad()
def sink_strength(model: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Attention to position 0 from all later positions, by block [L]: mean over heads.

    The model computes attention in the plain way for this pass, since faster ways keep no weights.
    """
    backbone: Any = backbone_of(model)
    before, device = backbone.config._attn_implementation, next(backbone.parameters()).device
    paid_LB = []
    try:
        backbone.set_attn_implementation("eager")
        with evaluating(backbone):
            for ids_BT in batches:
                weights = backbone(input_ids=ids_BT.to(device), output_attentions=True).attentions
                if not weights or weights[0] is None:
                    raise HeadlessError("this model gives no attention weights: leave out the sink")
                paid = [w[:, :, 1:, 0].double().mean(dim=(1, 2)).cpu() for w in weights]
                paid_LB.append(torch.stack(paid))
    finally:
        backbone.set_attn_implementation(before)
    return torch.cat(paid_LB, dim=1).mean(dim=1)
