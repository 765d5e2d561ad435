"""Latent states in pictures: by component, depth and position (A17).

Everything is made from the reservoirs of `Statistics`: states of all positions but the first.

Shapes: N states, D hidden size, K axes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.latents_drawing import axis, draw, draw_positions
from headless.analysis.sources import PAPER
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Component, Point
from headless.analysis.states.reservoirs import gather, prepared
from headless.analysis.umap_layout import neighbours, umap_layout
from headless.geometry import explained, principal_axes, shares_of_independent

UMAP_STATES = 5000
FOLLOWED = 4000  # states whose way is followed over checkpoints
STREAM: tuple[Component, ...] = ("embed", "post", "norm_f")


def latents(
    statistics: Mapping[Point, Statistics],
    *,
    components: Sequence[Component] = ("attn", "mlp"),
    most: int = 400,
    umap: bool = False,
    seed: int = 0,
) -> Finding:
    """Principal components of states by component, depth and position.

    Args:
        statistics: with reservoirs.
        components: for the picture by component.
        most: states of a point.
        umap: also lay states out by UMAP, which takes minutes.
        seed: of UMAP and of the null models.

    Raises:
        HeadlessError: no such states, or UMAP is asked for and not there.
    """
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    pictures: list[Picture] = []
    layouts = {}
    for name, chosen in (("components", tuple(components)), ("stream", STREAM)):
        x_ND, points, index_N, position_N = gather(statistics, chosen, None, most)
        for how in ("raw", "unit"):
            ready_ND = prepared(x_ND, how)
            axes = principal_axes(ready_ND)
            null_K = shares_of_independent(ready_ND, seed=seed)
            z_NK = axes(ready_ND)
            key = f"latents/{name}/{how}"
            for k, share in enumerate(axes.shares_K.tolist()):
                scalars[f"{key}/share/{k + 1}"] = share
                scalars[f"{key}/null_share/{k + 1}"] = float(null_K[k])
            block_N = torch.tensor([p.block for p in points])[index_N]
            inside_N = torch.tensor([p.component not in ("embed", "norm_f") for p in points])
            inside_N = inside_N[index_N]
            scalars[f"{key}/depth_r2"] = explained(z_NK[inside_N], block_N[inside_N])
            scalars[f"{key}/position_r2"] = explained(z_NK, position_N)
            arrays[f"{name}_{how}"] = z_NK.numpy()
            layouts[name, how] = (z_NK.numpy(), axes.shares_K.numpy())
        some_N = torch.linspace(0, len(x_ND) - 1, min(len(x_ND), FOLLOWED)).round().long()
        arrays[f"{name}_states"] = x_ND[some_N].float().numpy()
        arrays[f"{name}_states_point"] = index_N[some_N].numpy()
        arrays[f"{name}_names"] = np.array([p.name for p in points])
        arrays[f"{name}_point"], arrays[f"{name}_position"] = index_N.numpy(), position_N.numpy()
        labels = (points, index_N.numpy(), position_N.numpy())
        pictures += _pictures(name, layouts, labels, scalars)
        if umap:
            few_N = torch.linspace(0, len(x_ND) - 1, min(len(x_ND), UMAP_STATES)).round().long()
            flat = umap_layout(x_ND[few_N], seed)
            arrays[f"{name}_umap"] = flat
            of_few = index_N[few_N].numpy()
            kinds = [points[i].component for i in of_few]
            if len(set(kinds)) > 1:
                scalars |= neighbours(flat, kinds, f"latents/{name}/umap", seed)
            pictures.append(
                Picture(
                    f"latents-{name}-umap",
                    f"{len(few_N):,} of the same states by UMAP with cosine distance: neighbours "
                    "stay neighbours, distances mean little.",
                    lambda flat=flat, of_few=of_few, points=points: draw(  # type: ignore[misc]
                        [(flat, (0, 1), ("UMAP 1", "UMAP 2"))], points, of_few
                    ),
                    wide=False,
                )
            )
    depth_r2 = scalars["latents/stream/unit/depth_r2"]
    first = scalars["latents/stream/unit/share/1"]
    null = scalars["latents/stream/unit/null_share/1"]
    answer = (
        f"The first principal component of the residual stream's directions holds {first:.0%} of "
        f"their variance ({null:.1%} if dimensions were independent); six components tell the "
        f"depth of a state with R² {depth_r2:.2f} and its position with R² "
        f"{scalars['latents/stream/unit/position_r2']:.2f} (0 by chance)."
    )
    claims = (
        Claim(
            PAPER,
            "States progress from layer to layer in the first principal components, seen best on "
            "unit vectors",
            None if np.isnan(depth_r2) else depth_r2 >= 0.5,
            f"R² of depth on six components {depth_r2:.2f}, at least 0.50",
        ),
    )
    about = (
        "Every state of the network is a vector of as many numbers as the model is wide. Principal "
        "component analysis turns the cloud of all of them so that the first two coordinates show "
        "as much of their differences as two can. Colours tell which part of the network wrote a "
        "state, dark ones are early blocks. Raw states are dominated by the long vectors of late "
        "blocks; with all vectors scaled to length 1 only directions count. The first position is "
        "left out. The numbers say how much of the variance each axis holds, beside what it would "
        "hold if every dimension were shuffled by itself, and how well depth and position can be "
        "read off six axes."
    )
    return Finding(
        "latents", "Latent states by component, depth and position", about, answer, scalars,
        arrays, tuple(pictures), claims,
    )  # fmt: skip


def _pictures(name: str, layouts: Any, labels: Any, scalars: Mapping[str, float]) -> list[Picture]:
    points, index_N, position_N = labels
    panels = []
    for how in ("raw", "unit"):
        z_NK, shares_K = layouts[name, how]
        panels.append((z_NK, (0, 1), (axis(1, shares_K), axis(2, shares_K))))
    nulls = [scalars[f"latents/{name}/{how}/null_share/1"] for how in ("raw", "unit")]
    caption = (
        f"{'Outputs by component' if name == 'components' else 'The residual stream by depth'}: "
        "raw on the left, as unit vectors on the right; dark is early. With shuffled dimensions "
        f"the first axis would hold {nulls[0]:.1%} and {nulls[1]:.1%}."
    )
    found = [
        Picture(
            f"latents-{name}",
            caption,
            lambda: draw(panels, points, index_N, ["raw", "unit vectors"]),
        )
    ]
    z_NK, shares_K = layouts[name, "unit"]
    if z_NK.shape[1] >= 6:
        pairs = [(0, 1), (2, 3), (4, 5)]
        grid = [(z_NK, p, tuple(axis(i + 1, shares_K) for i in p)) for p in pairs]
        if name == "stream":
            inside = np.array([p.component == "post" for p in points])[index_N]
            grid = [(z[inside], p, names) for z, p, names in grid]
            found.append(
                Picture(
                    "latents-positions",
                    "The stream after all blocks, unit vectors, coloured by position; six "
                    f"components tell it with R² "
                    f"{scalars['latents/stream/unit/position_r2']:.2f}, 0 by chance.",
                    lambda: draw_positions(grid, position_N[inside]),
                )
            )
        else:
            found.append(
                Picture(
                    f"latents-{name}-more",
                    "The first six components in pairs, unit vectors.",
                    lambda: draw(grid, points, index_N),
                )
            )
    return found
