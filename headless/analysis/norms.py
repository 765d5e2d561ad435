"""Norms of states by layer and position, and the initial token."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.by_depth import (
    COMPONENT_COLORS,
    COMPONENT_NAMES,
    components_in,
    panels_of,
    states_of,
    stream_of,
)
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import PAPER
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.capture import Point, middle_blocks
from headless.geometry import Growth, growth
from headless.geometry.growth import MARGIN, RISES
from headless.pages.figures import INK, compact_ticks, drawing_style, series_color

MASSIVE = 10.0  # first position's norm over the others' from which on it is called massive
_ABOUT = (
    "The length of the states. In many decoders the state at position 0 is hundreds of times as "
    "long as all others, whichever token stands there: attention that has nothing to look at "
    "looks there (an attention sink). So position 0 is kept apart everywhere. By layer the mean "
    "runs over all other positions; by position over the middle blocks (a sixth to three quarters "
    "of the depth). To see whether it is the place or the token, tokens of the vocabulary are "
    "given alone, each as a sequence of one. The null is the spread of the ordinary positions: a "
    "first position like any other has the ratio 1."
)


def norms(
    statistics: Mapping[Point, Statistics],
    *,
    alone: Mapping[Point, Tensor] | None = None,
    sink: Tensor | None = None,
) -> Finding:
    """Mean norms by layer and by position, and what the first position does.

    Args:
        statistics: of `measure`.
        alone: of `initial_token.initial_token_norms`: norms [N] of single tokens at `post` points.
        sink: of `initial_token.sink_strength`: attention to position 0 by block [L].

    Raises:
        HeadlessError: no `post` point was measured.
    """
    stream = stream_of(statistics)
    posts = states_of(statistics, "post")
    scalars: dict[str, float] = {}
    for point, s in statistics.items():
        first, others_mean = moments.mean_norm(s, FIRST), moments.mean_norm(s)
        scalars[f"norms/{point.name}/first"] = first
        scalars[f"norms/{point.name}/rest"] = others_mean
        scalars[f"norms/{point.name}/ratio"] = first / others_mean
    middle = middle_blocks([block for block, _ in posts])
    by_position = {b: s.position_norm_T / s.position_count_T for b, s in posts}
    profile_T = torch.stack([by_position[b] for b in middle]).mean(dim=0).numpy()
    others = profile_T[1:][np.isfinite(profile_T[1:])]
    ratio = float(profile_T[0] / others.mean())
    scalars["norms/first_over_rest"] = ratio
    scalars["norms/first_over_largest_other"] = float(profile_T[0] / others.max())
    rest = np.array([moments.mean_norm(s) for _, s in posts])
    factor = _growth(rest, [b for b, _ in posts], middle)
    scalars["norms/growth"] = factor
    arrays: dict[str, np.ndarray] = {"by_position": profile_T, "post/rest": rest}
    arrays["post/first"] = np.array([moments.mean_norm(s, FIRST) for _, s in posts])
    if alone is not None:
        alone_N = torch.stack([v for p, v in alone.items() if p.block in middle]).mean(dim=0)
        arrays["alone"] = alone_N.double().numpy()
        scalars["norms/alone/median_ratio"] = float(np.median(arrays["alone"]) / others.mean())
        scalars["norms/alone/massive_share"] = float(
            np.mean(arrays["alone"] >= MASSIVE * others.mean())
        )
    if sink is not None:
        arrays["sink"] = sink.double().numpy()
        for block, value in enumerate(arrays["sink"]):
            scalars[f"norms/sink/{block:02d}"] = float(value)
    pictures = [
        Picture(
            "norms-by-layer",
            "Mean norm along the residual stream, of position 0 and of all others, and of what "
            "attention and MLPs add at all others.",
            lambda: _draw_layers(statistics, stream),
        ),
        Picture(
            "norms-by-position",
            "Mean norm by position, over the middle blocks. The band holds 98 % of the positions "
            "but the first: what an ordinary position looks like.",
            lambda: _draw_positions(profile_T),
        ),
    ]
    if alone is not None:
        pictures.append(
            Picture(
                "norms-alone",
                "Norms in the middle blocks of single tokens at position 0, over the vocabulary; "
                "dashed: the mean of ordinary positions in text, dotted: position 0 in text.",
                lambda: _draw_alone(arrays["alone"], others.mean(), profile_T[0]),
                wide=False,
            )
        )
    if sink is not None:
        pictures.append(
            Picture(
                "attention-sink",
                "Attention paid to position 0 by all later positions, mean over heads; dashed: "
                "what attention spread evenly would pay (null).",
                lambda: _draw_sink(arrays["sink"], statistics),
                wide=False,
            )
        )
    return Finding(
        name="norms",
        title="How long are the states, and what is position 0?",
        about=_ABOUT,
        answer=_answer(scalars, ratio, rest, factor),
        scalars=scalars,
        arrays=arrays,
        pictures=tuple(pictures),
        claims=_claims(statistics, scalars, arrays, ratio),
    )


def _growth(rest: np.ndarray, blocks: list[int], middle: list[int]) -> float:
    """Factor by which the norm grows with each of the middle blocks: geometric mean."""
    places = [blocks.index(block) for block in middle]
    if len(places) < 2:
        places = list(range(len(blocks)))
    if len(places) < 2:
        return float("nan")
    return float((rest[places[-1]] / rest[places[0]]) ** (1 / (places[-1] - places[0])))


def _answer(scalars: Mapping[str, float], ratio: float, rest: np.ndarray, growth: float) -> str:
    kind = "massive" if ratio >= MASSIVE else "not massive"
    text = (
        f"In the middle blocks position 0 is {ratio:.1f} times as long as other positions: {kind} "
        f"(from {MASSIVE:g} on). Other positions grow from {rest[0]:.3g} after the first block to "
        f"{rest[-1]:.3g} after the last, by a factor of {growth:.3f} a block in the middle."
    )
    if "norms/alone/massive_share" in scalars:
        share = scalars["norms/alone/massive_share"]
        text += f" Of single tokens put there {share:.0%} become massive."
    return text


def _claims(
    statistics: Mapping[Point, Statistics],
    scalars: Mapping[str, float],
    arrays: Mapping[str, np.ndarray],
    ratio: float,
) -> tuple[Claim, ...]:
    posts = states_of(statistics, "post")
    first = arrays["post/first"]
    massive = ratio >= MASSIVE
    steps = np.diff(first, prepend=scalars.get("norms/embed/first", 0.0))
    jump = float(steps.max() / first.max())
    place = posts[int(steps.argmax())][0]
    by_mlp, by_attention = (
        scalars.get(f"norms/{Point(part, place).name}/first", float("nan"))
        for part in ("mlp", "attn")
    )
    fall = float(first[-1] / first.max())
    rest = arrays["post/rest"]
    law = growth(rest)
    claims = [
        Claim(
            PAPER,
            "position 0 has a far larger norm than all others in the middle blocks",
            massive,
            f"ratio {ratio:.1f}, at least {MASSIVE:g}",
        ),
        Claim(
            PAPER,
            "its norm arises in the MLP of one block (2 in GPT-2 and LLaMA-7B)",
            bool(jump >= 0.5 and by_mlp > by_attention) if massive else None,
            f"the largest step, at block {place}, is {jump:.0%} of the largest norm, at least 50%; "
            f"the MLP adds {by_mlp:.3g} there, more than attention ({by_attention:.3g})",
        ),
        Claim(
            PAPER,
            "and falls before the end",
            bool(fall <= 0.6) if massive else None,
            f"after the last block {fall:.0%} of the largest norm, at most 60%",
        ),
        Claim(
            "Heimersheim and Turner 2023",
            "the norm of the residual stream grows exponentially with depth",
            None if law is None else law.exponential,
            "needs five blocks" if law is None else _laws(law),
        ),
    ]
    if "alone" in arrays:
        share = scalars["norms/alone/massive_share"]
        claims.append(
            Claim(
                PAPER,
                "most tokens do it at position 0, not only the one that begins texts",
                bool(share >= 0.5),
                f"{share:.0%} of single tokens are {MASSIVE:g} times as long as ordinary "
                "positions, at least 50%",
            )
        )
    return tuple(claims)


def _laws(law: Growth) -> str:
    unsure = "; too close to tell" if law.exponential is None else ""
    return (
        f"R² of the log norm {law.exponential_r2:.3f} with a factor a block ({law.factor:.3f}, "
        f"above 1), {law.linear_r2:.3f} with an amount a block; the better one at least {RISES:g}, "
        f"AIC better by {law.evidence:.1f} with a factor, at least {MARGIN:g}{unsure}"
    )


def _draw_layers(
    statistics: Mapping[Point, Statistics], stream: list[tuple[Point, Statistics]]
) -> Any:
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.6)
        last = max(point.block for point, _ in stream if point.component == "post")
        points = [(p.block if p.component != "norm_f" else last + 1, s) for p, s in stream]
        x = [block for block, _ in points]
        for group, label, style in ((FIRST, "position 0", "--"), (REST, "other positions", "-")):
            y = [moments.mean_norm(s, group) for _, s in points]
            panel.plot(x, y, style, color=INK, marker="o", markersize=3, label=f"stream, {label}")
        for component in components_in(statistics):
            if component in ("attn", "mlp"):
                found = states_of(statistics, component)
                y = [moments.mean_norm(s) for _, s in found]
                panel.plot(
                    [block for block, _ in found],
                    y,
                    color=COMPONENT_COLORS[component],
                    label=COMPONENT_NAMES[component],
                )
        compact_ticks(panel.yaxis, log=True)
        ends = " (−1: input" + (f", {last + 1}: after the final norm)" if last + 1 in x else ")")
        panel.set(xlabel=f"block{ends}", ylabel="mean norm")
        panel.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _draw_positions(profile_T: np.ndarray) -> Any:
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        low, high = np.nanquantile(profile_T[1:], [0.01, 0.99])
        panel.axhspan(low, high, color=series_color(0), alpha=0.12, lw=0)
        panel.plot(np.arange(len(profile_T)), profile_T, color=series_color(0), lw=1.0)
        panel.plot([0], profile_T[:1], "o", color=series_color(1), markersize=5)
        panel.annotate(
            "position 0", (0, profile_T[0]), xytext=(8, -3), textcoords="offset points", fontsize=8
        )
        compact_ticks(panel.yaxis, log=True)
        panel.set(xlabel="position", ylabel="mean norm")
    return figure


def _draw_alone(alone_N: np.ndarray, rest: float, first: float) -> Any:
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        edges = np.geomspace(min(alone_N.min(), rest) / 1.3, max(alone_N.max(), first) * 1.3, 50)
        panel.hist(alone_N, edges, color=series_color(0), alpha=0.7)
        panel.axvline(rest, ls="--", color=INK, lw=1.0)
        panel.axvline(first, ls=":", color=INK, lw=1.2)
        compact_ticks(panel.xaxis, log=True)
        panel.set(xlabel="norm in the middle blocks", ylabel="tokens")
    return figure


def _draw_sink(sink_L: np.ndarray, statistics: Mapping[Point, Statistics]) -> Any:
    count_T = next(iter(statistics.values())).position_count_T.numpy()
    positions = np.arange(1, len(count_T))
    even = float((count_T[1:] / (positions + 1)).sum() / count_T[1:].sum())
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        panel.bar(np.arange(len(sink_L)), sink_L, color=series_color(0))
        panel.axhline(even, ls="--", color=INK, lw=1.0)
        panel.set(xlabel="block", ylabel="attention to position 0", ylim=(0, 1))
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure
