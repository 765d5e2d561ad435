"""Alignment and uniformity of states and of the head."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.by_depth import panels_of, stream_of
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.projection import unit
from headless.geometry.uniformity import class_alignment, isotropic_uniformity, uniformity
from headless.pages.figures import INK, MUTED, compact_ticks, drawing_style, series_color

ROWS = 5000  # vectors for uniformity, which compares all pairs
_ABOUT = (
    "Wang and Isola describe what a contrastive objective asks for in two numbers, of unit "
    "vectors. Alignment: the mean squared distance of vectors that belong together, small is "
    "better; here states of the same token in different contexts, and, at the last point, a state "
    "with the head's row for the token that follows. Its null: the same vectors in random pairs. "
    "Uniformity: how evenly all vectors cover the sphere, log mean exp(−2 distance²), lower is "
    "more even; its null, directions drawn uniformly, is about −4."
)


def alignment_uniformity(
    statistics: Mapping[Point, Statistics],
    *,
    tokens_K: Tensor | None = None,
    next_K: Tensor | None = None,
    tables: Mapping[str, Tensor] | None = None,
    head: str | None = None,
) -> Finding:
    """Alignment and uniformity along the stream, and of the tables.

    Args:
        statistics: of `measure`, with a reservoir; the same states are kept at every point.
        tokens_K: the token at each kept state (`sample_tokens`), for alignment over contexts.
        next_K: the token after it (`sample_tokens(..., offset=1)`, -1 for none), for alignment
            with the head.
        tables: matrices [V, D] by name, e.g. "embedding" and "head".
        head: the table whose rows score the last states.

    Raises:
        HeadlessError: no `post` point was measured.
    """
    tables = {name: table.detach().cpu().double() for name, table in (tables or {}).items()}
    stream = stream_of(statistics)
    width = stream[0][1].powers_G4D.shape[-1]
    null = isotropic_uniformity(width)
    scalars = {"alignment_uniformity/isotropic": null}
    for point, s in stream:
        key = f"alignment_uniformity/{point.name}"
        scalars[f"{key}/uniformity"] = uniformity(s.sample_KD.double()[:ROWS])
    scalars |= alignments(statistics, tokens_K)
    for name, table_VD in tables.items():
        few = table_VD[torch.linspace(0, len(table_VD) - 1, min(ROWS, len(table_VD))).long()]
        scalars[f"alignment_uniformity/{name}/uniformity"] = uniformity(few)
        scalars[f"alignment_uniformity/{name}/mean_cosine"] = float(mean_cosine(table_VD))
    if next_K is not None and head in tables:
        scalars |= next_token(stream[-1][1].sample_KD, next_K, tables[head])
    names = ["uniformity", "random_pairs", "same_token"]
    arrays = {
        name: np.array(
            [scalars.get(f"alignment_uniformity/{p.name}/{name}", np.nan) for p, _ in stream]
        )
        for name in names
    }
    points = [point for point, _ in stream]
    return Finding(
        name="alignment_uniformity",
        title="Alignment and uniformity",
        about=_ABOUT,
        answer=_answer(scalars, points, null),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "alignment-uniformity",
                "Along the stream: uniformity (left; dashed: isotropic) and alignment of states of "
                "one token in different contexts (right; dashed: random pairs).",
                lambda: _draw(points, arrays, null),
            ),
        ),
        claims=_claims(scalars, points, null),
    )


def alignments(
    statistics: Mapping[Point, Statistics], tokens_K: Tensor | None = None
) -> dict[str, float]:
    """Along the stream: the mean squared distance in random pairs and of states of one token.

    Raises:
        HeadlessError: no `post` point was measured.
    """
    scalars: dict[str, float] = {}
    for point, s in stream_of(statistics):
        key = f"alignment_uniformity/{point.name}"
        x_KD = s.sample_KD.double()
        scalars[f"{key}/random_pairs"] = 2.0 - 2.0 * float(mean_cosine(x_KD))
        scalars[f"{key}/mean_cosine"] = moments.mean_cosine(s)
        if tokens_K is not None:
            scalars[f"{key}/same_token"], _ = class_alignment(x_KD, tokens_K)
    return scalars


def next_token(state_KD: Tensor, next_K: Tensor, head_VD: Tensor) -> dict[str, float]:
    """Mean squared distance of unit states and unit rows of what follows, and in random pairs.

    Args:
        state_KD: the last states.
        next_K: the token after each, -1 for none.
        head_VD: the rows that score them, on any device.
    """
    here_K = next_K >= 0
    rows_ND = head_VD[next_K[here_K].to(head_VD.device)].to(state_KD.device)
    state_ND, row_ND = unit(state_KD[here_K]), unit(rows_ND)
    if not len(state_ND):
        return {}
    together = 2.0 - 2.0 * float((state_ND * row_ND).sum(dim=1).mean())
    apart = 2.0 - 2.0 * float(state_ND.mean(dim=0) @ row_ND.mean(dim=0))
    return {
        "alignment_uniformity/next_token": together,
        "alignment_uniformity/next_token/random_pairs": apart,
    }


def _answer(scalars: Mapping[str, float], points: list[Point], null: float) -> str:
    last = f"alignment_uniformity/{points[-1].name}"
    text = (
        f"At {points[-1].name} uniformity is {scalars[last + '/uniformity']:.2f} (isotropic: "
        f"{null:.2f})."
    )
    if f"{last}/same_token" in scalars:
        text += (
            f" States of one token are {scalars[last + '/same_token']:.2f} apart, random pairs "
            f"{scalars[last + '/random_pairs']:.2f} (mean squared distance)."
        )
    if "alignment_uniformity/next_token" in scalars:
        text += (
            f" A state is {scalars['alignment_uniformity/next_token']:.2f} from the head's row of "
            f"what follows and {scalars['alignment_uniformity/next_token/random_pairs']:.2f} from "
            "the rows of other tokens in the text."
        )
    return text


def _claims(scalars: Mapping[str, float], points: list[Point], null: float) -> tuple[Claim, ...]:
    last = f"alignment_uniformity/{points[-1].name}"
    value = scalars[f"{last}/uniformity"]
    both = "alignment_uniformity/next_token" in scalars
    together = scalars.get("alignment_uniformity/next_token", float("nan"))
    apart = scalars.get("alignment_uniformity/next_token/random_pairs", float("nan"))
    return (
        Claim(
            "Wang and Isola 2020",
            "a contrastive objective spreads states evenly",
            value < null + 1.0,
            f"uniformity {value:.2f} of the last states, within 1 of {null:.2f}",
        ),
        Claim(
            "Wang and Isola 2020",
            "and brings together what belongs together",
            apart - together > 0.1 if both else None,
            f"squared distance to the next token's row {together:.2f}, at least 0.1 below "
            f"{apart:.2f} of random pairs"
            if both
            else "the rows of a head, and what follows, are not known",
        ),
    )


def _draw(points: list[Point], arrays: Mapping[str, np.ndarray], null: float) -> Any:
    x = [point.block for point in points]
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.0)
        color = series_color(0)
        panels[0].plot(x, arrays["uniformity"], color=color, marker="o", markersize=3)
        panels[0].axhline(null, ls="--", color=INK, lw=0.9)
        panels[0].set(title="uniformity", ylabel="log mean exp(−2 distance²)")
        panels[1].plot(
            x, arrays["same_token"], color=color, marker="o", markersize=3, label="one token"
        )
        panels[1].plot(x, arrays["random_pairs"], "--", color=MUTED, label="random pairs (null)")
        panels[1].set(title="alignment", ylabel="mean squared distance")
        panels[1].legend(fontsize=8)
        for panel in panels:
            panel.set_xlabel("block (−1: input, last: after the final norm)")
            panel.xaxis.get_major_locator().set_params(integer=True)
        compact_ticks(panels[1].yaxis)
    return figure
