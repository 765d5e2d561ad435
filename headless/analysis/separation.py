"""How far what attention writes is from what the MLPs write (A18).

Shapes: N states.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headless.analysis.by_depth import middle_blocks
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.latents_drawing import axis, draw
from headless.analysis.sources import PAPER
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point
from headless.analysis.states.reservoirs import gather, prepared
from headless.errors import HeadlessError
from headless.geometry import principal_axes, separation

SHUFFLES = 19


def attention_and_mlp(
    statistics: Mapping[Point, Statistics], *, most: int = 200, seed: int = 0
) -> Finding:
    """Do attention and MLP write to different regions? Scores with held-out blocks and nulls.

    Args:
        statistics: with reservoirs at `attn` and `mlp`.
        most: states of a point.
        seed: of the null models.

    Raises:
        HeadlessError: no such states, or one block only.
    """
    depth = 1 + max((p.block for p in statistics if p.component == "attn"), default=-1)
    if depth < 2:
        raise HeadlessError("the separation of attention and MLP needs two blocks or more")
    chosen = middle_blocks(range(depth))
    if len(chosen) < 2:
        chosen = list(range(depth))
    x_ND, points, index_N, _ = gather(statistics, ("attn", "mlp"), chosen, most)
    kind_N = torch.tensor([int(p.component == "mlp") for p in points])[index_N]
    block_N = torch.tensor([p.block for p in points])[index_N]
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    panels: list[Any] = []
    for how in ("raw", "unit"):
        ready_ND = prepared(x_ND, how)
        found = separation(ready_ND, kind_N, block_N, shuffles=SHUFFLES, seed=seed)
        key = f"separation/{how}"
        scalars |= {
            f"{key}/plane": found.plane,
            f"{key}/plane/null": float(found.null_plane.mean()),
            f"{key}/plane/null_largest": float(found.null_plane.max()),
            f"{key}/held_out": found.held_out,
            f"{key}/held_out/null": float(found.null_held_out.mean()),
            f"{key}/held_out/null_largest": float(found.null_held_out.max()),
            f"{key}/held_out/null_swapped": float(found.null_swapped.mean()),
            f"{key}/held_out/null_swapped_largest": float(found.null_swapped.max()),
            f"{key}/silhouette": found.silhouette,
            f"{key}/angle": found.angle,
        }
        z_NK = principal_axes(ready_ND)(ready_ND).numpy()
        arrays[how] = z_NK
        null = found.null_held_out.mean()
        title = f"{how}: held-out blocks {found.held_out:.2f}, shuffled {null:.2f}"
        panels.append((z_NK, (0, 1), (axis(1, found.shares_K), axis(2, found.shares_K)), title))
    arrays["point"] = index_N.numpy()
    held, silhouette = scalars["separation/unit/held_out"], scalars["separation/unit/silhouette"]
    largest = scalars["separation/unit/held_out/null_largest"]
    plane = scalars["separation/unit/plane"]
    few = len(chosen) < 4
    answer = (
        f"In the middle blocks ({chosen[0]}–{chosen[-1]} of 0–{depth - 1}) a line in the plane of "
        f"the first two components tells attention's outputs from the MLPs' in {plane:.0%} of the "
        f"cases; six components learned on every second block tell them on the others in "
        f"{held:.0%} (at most {largest:.0%} with shuffled labels, silhouette {silhouette:.2f})."
        + (" Few blocks: the picture cannot be tested well." if few else "")
    )
    agrees = held >= 0.8 and held > largest
    claims = (
        Claim(
            PAPER,
            "Outputs of attention and of MLPs lie in distinct regions in intermediate layers",
            agrees,
            f"held-out-blocks accuracy {held:.2f} on unit vectors, at least 0.80 and above all "
            f"{SHUFFLES} shuffles (largest {largest:.2f})",
        ),
    )
    about = (
        "What attention adds to the stream and what the MLP adds are vectors of the same space. "
        "The paper sees them in distinct regions of a picture; here that is a number. A logistic "
        "regression on the first six principal components learns to tell the two apart on every "
        "second block and is tested on the blocks between, and the other way round: 0.5 is chance. "
        "Two null models stand beside it: labels shuffled within each block, and the two labels of "
        "whole blocks exchanged at random, which keeps two clusters a block but no direction that "
        "blocks share. The silhouette says how much nearer a state is to its own kind than to the "
        "other (1: far apart, 0: mixed)."
    )
    picture = Picture(
        "separation",
        "Outputs of attention (blue) and MLP (red) in the middle blocks, dark: early. In the "
        "titles the accuracy on held-out blocks beside the one with shuffled labels.",
        lambda: draw([p[:3] for p in panels], points, index_N.numpy(), [p[3] for p in panels]),
    )
    return Finding(
        "separation", "Attention against MLP", about, answer, scalars, arrays, (picture,), claims
    )
