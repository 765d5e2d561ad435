"""States in the plane of their principal components, and how attention's lie to the MLPs'.

Shapes: N states, K axes.
"""

import importlib.util
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import cloud
from headless.analysis.record import Cloud, Finding, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import PAPER
from headless.analysis.states.capture import Component, middle_blocks
from headless.analysis.states.reservoirs import gather, prepared
from headless.errors import HeadlessError
from headless.geometry import (
    Projection,
    explained,
    principal_axes,
    separation,
    shares_of_independent,
)

SETS: dict[str, tuple[Component, ...]] = {
    "components": ("attn", "mlp"),
    "stream": ("embed", "post", "norm_f"),
}
UMAP_STATES = 5000
FOLLOWED = 4000  # states whose way is followed over checkpoints
SHUFFLES = 19
SPLIT = "raw on the left, as unit vectors on the right; dark is early."
UMAP = (
    "Some of the same states by UMAP with cosine distance: neighbours stay neighbours, distances "
    "mean little."
)
MOVES = "The same states in the plane of the last checkpoint's components, raw and as unit vectors"


def _along(name: str, finding: Finding, last: Finding) -> Finding:
    """The states of a set in the plane of another checkpoint's components."""
    own, theirs = (f.payloads[f"_kept_{name}"][Place()] for f in (finding, last))
    assert isinstance(own, Cloud)
    assert isinstance(theirs, Cloud)
    clouds = {}
    for how in ("raw", "unit"):
        axes = principal_axes(prepared(torch.from_numpy(theirs.points), how), 2)
        z_NK = axes(prepared(torch.from_numpy(own.points), how))
        clouds[Place(how)] = replace(own, points=z_NK.numpy(), axes=_axes(axes))
    return replace(finding, payloads={**finding.payloads, f"{name}_{{place}}": clouds})


@analysis(
    "latents",
    title="Latent states by component, depth and position",
    about=(
        "Principal component analysis turns the cloud of all states so that two coordinates show "
        "as much of their differences as two can. Raw states are dominated by the long vectors of "
        "late blocks; scaled to length 1 only directions count. The first position is left out. "
        "The numbers say how much of the variance each axis holds, beside what it would hold if "
        "every dimension were shuffled by itself, and how well depth and position can be read off "
        "six axes."
    ),
    needs={"text"},
    figures=(
        cloud(
            "latents-components",
            f"Outputs by component: {SPLIT}",
            "components_{place}",
            film=("film-latents", MOVES),
            seen=partial(_along, "components"),
        ),
        cloud("latents-components-umap", UMAP, "components_umap", wide=False),
        cloud(
            "latents-stream",
            f"The residual stream by depth: {SPLIT}",
            "stream_{place}",
            film=("film-latents-stream", MOVES),
            seen=partial(_along, "stream"),
        ),
        cloud("latents-stream-umap", UMAP, "stream_umap", wide=False),
    ),
    claims=(
        Claim(
            PAPER,
            "States progress from layer to layer in the first principal components, seen best on "
            "unit vectors",
            values("depth_r2", "stream/unit").only >= 0.5,
        ),
    ),
)
def latents(lab: Session, *, nulls: bool) -> Finding:
    """Shares of the axes, R² of depth and position on them, and with `lab.umap` a map by UMAP."""
    numbers: dict[Place, dict[str, float]] = {}
    payloads: dict[str, dict[Place, Any]] = {}
    for name, components in SETS.items():
        x_ND, points, index_N, position_N = gather(lab.statistics, components)
        kinds_N = np.array([p.component for p in points])[index_N]
        block_N = torch.tensor([p.block for p in points])[index_N]
        after_N = torch.from_numpy(~np.isin(kinds_N, ("embed", "norm_f")))
        look = Cloud(x_ND.numpy(), block_N.numpy(), kinds=tuple(kinds_N))
        clouds = payloads[f"{name}_{{place}}"] = {}
        for how in ("raw", "unit"):
            ready_ND = prepared(x_ND, how)
            axes = principal_axes(ready_ND)
            z_NK = axes(ready_ND)
            numbers[Place(f"{name}/{how}")] = {
                **share_numbers("share", axes.shares_K),
                **share_numbers("null_share", shares_of_independent(ready_ND, seed=lab.seed)),
                "depth_r2": explained(z_NK[after_N], block_N[after_N]),
                "position_r2": explained(z_NK, position_N),
            }
            clouds[Place(how)] = replace(look, points=z_NK[:, :2].numpy(), axes=_axes(axes))
        if lab.umap:
            shown = _some(look, UMAP_STATES)
            shown = replace(shown, points=umap_layout(torch.from_numpy(shown.points), lab.seed))
            payloads[f"{name}_umap"] = {Place("UMAP"): shown}
        payloads[f"_kept_{name}"] = {Place(): _some(look, FOLLOWED)}
    stream = numbers[Place("stream/unit")]
    return Finding(series_of(numbers), payloads).answered(
        f"The first principal component of the residual stream's directions holds "
        f"{stream['share/1']:.0%} of their variance ({stream['null_share/1']:.1%} if dimensions "
        f"were independent); six components tell a state's depth with R² "
        f"{stream['depth_r2']:.2f}, its position with R² {stream['position_r2']:.2f}."
    )


def _axes(axes: Projection) -> tuple[str, ...]:
    return tuple(f"component {k + 1} ({axes.shares_K[k]:.0%})" for k in (0, 1))


def _some(states: Cloud, most: int) -> Cloud:
    """At most so many, evenly."""
    count = len(states.points)
    kept_N = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    assert states.color is not None
    kinds = tuple(states.kinds[i] for i in kept_N)
    return replace(states, points=states.points[kept_N], color=states.color[kept_N], kinds=kinds)


def share_numbers(name: str, shares_K: Tensor) -> dict[str, float]:
    """Keys and numbers of components from 1 on."""
    return {f"{name}/{k}": share for k, share in enumerate(shares_K.tolist(), 1)}


def check_umap() -> None:
    """A HeadlessError before hours of work, where umap-learn is not installed."""
    if importlib.util.find_spec("umap") is None:
        raise HeadlessError("UMAP needs umap-learn: pip install umap-learn")


def umap_layout(x_ND: Tensor, seed: int = 0) -> np.ndarray:
    """Two coordinates a state by UMAP with cosine distance [N, 2]; the same ones every time."""
    check_umap()
    import umap

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")  # a seed means one thread
        layout = umap.UMAP(n_neighbors=15, metric="cosine", random_state=seed)
        return np.asarray(layout.fit_transform(x_ND.float().cpu().numpy()), dtype=np.float64)


HELD_OUT, LARGEST = values("held_out", "unit").only, values("held_out/null_largest", "unit").only


@analysis(
    "separation",
    title="Attention against MLP",
    about=(
        "Do outputs of attention and of the MLP lie in distinct regions? A logistic regression on "
        "the first six principal components learns to tell the two apart on every second block "
        "and is tested on the blocks between, and the other way round: 0.5 is chance. Two nulls: "
        "labels shuffled within each block, and the labels of whole blocks exchanged at random, "
        "which keeps two clusters a block but no direction that blocks share."
    ),
    needs={"text"},
    figures=(
        cloud(
            "separation",
            "Outputs of attention (blue) and MLP (red) in the middle blocks, dark: early. In the "
            "titles the accuracy on held-out blocks beside the one with shuffled labels.",
            "_planes",
        ),
    ),
    claims=(
        Claim(
            PAPER,
            "Outputs of attention and of MLPs lie in distinct regions in intermediate layers",
            (HELD_OUT >= 0.8) & (HELD_OUT > LARGEST),
        ),
    ),
)
def attention_and_mlp(lab: Session, *, nulls: bool) -> Finding:
    """Accuracies on held-out blocks, of raw states and of unit vectors."""
    depth = 1 + max((p.block for p in lab.statistics if p.component == "attn"), default=-1)
    if depth < 2:
        raise HeadlessError("the separation of attention and MLP needs two blocks or more")
    chosen = middle_blocks(range(depth))
    if len(chosen) < 2:
        chosen = list(range(depth))
    x_ND, points, index_N, _ = gather(lab.statistics, ("attn", "mlp"), chosen, most=200)
    kinds_N = np.array([p.component for p in points])[index_N]
    mlp_N = torch.from_numpy(kinds_N == "mlp").long()
    block_N = torch.tensor([p.block for p in points])[index_N]
    numbers, planes = {}, {}
    for how in ("raw", "unit"):
        ready_ND = prepared(x_ND, how)
        axes = principal_axes(ready_ND)
        apart = separation(ready_ND, mlp_N, block_N, shuffles=SHUFFLES, seed=lab.seed)
        numbers[Place(how)] = {
            "plane": apart.plane, "held_out": apart.held_out,
            "silhouette": apart.silhouette,
            **_null("held_out/null", apart.null_held_out),
            **_null("held_out/null_swapped", apart.null_swapped),
        }  # fmt: skip
        null = apart.null_held_out.mean()
        title = f"{how}: held-out blocks {apart.held_out:.2f}, shuffled {null:.2f}"
        points_N2, kinds = axes(ready_ND)[:, :2].numpy(), tuple(kinds_N)
        planes[Place(title)] = Cloud(points_N2, block_N.numpy(), _axes(axes), kinds=kinds)
    unit = numbers[Place("unit")]
    answer = (
        f"In the middle blocks ({chosen[0]}–{chosen[-1]} of 0–{depth - 1}) six components learned "
        f"on every second block tell attention's outputs from the MLPs' on the others in "
        f"{unit['held_out']:.0%} (at most {unit['held_out/null_largest']:.0%} with shuffled "
        f"labels), a line in the plane of two in {unit['plane']:.0%}."
    )
    if len(chosen) < 4:
        answer += " Few blocks: the picture cannot be tested well."
    return Finding(series_of(numbers), {"_planes": planes}).answered(answer)


def _null(name: str, scores: np.ndarray) -> dict[str, float]:
    return {name: float(scores.mean()), f"{name}_largest": float(scores.max())}
