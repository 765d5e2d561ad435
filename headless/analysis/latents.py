"""Latent states in pictures: by component, depth and position, and how far attention is from MLP.

Everything is made from the reservoirs of `Statistics`: states of all positions but the first.

Shapes: N states, D hidden size, K axes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from headless.analysis.accumulators import Statistics
from headless.analysis.by_depth import middle_blocks
from headless.analysis.capture import Component, Point
from headless.analysis.finding import Claim, Finding, Picture
from headless.errors import HeadlessError
from headless.geometry import (
    explained,
    principal_axes,
    separation,
    shares_of_independent,
    unit,
)
from headless.pages.figures import drawing_style, new_figure

PAPER = "Ning and Rangaraju 2025"
Prepare = Literal["raw", "unit", "norm"]
FEW = 8  # states at a point that scores need
SHUFFLES = 19
# The paper's colours: attention blue, MLP red, embedding green, final norm yellow; dark is early.
MAPS: dict[Component, str] = {
    "embed": "Greens", "norm1": "Oranges", "attn": "Blues", "mid": "Purples", "norm2": "RdPu",
    "mlp": "Reds", "post": "Greys", "norm_f": "YlOrBr",
}  # fmt: skip
STREAM: tuple[Component, ...] = ("embed", "post", "norm_f")


def prepared(x_ND: Tensor, how: Prepare) -> Tensor:
    """States as they are, with length 1, or through a layer norm without parameters; float64."""
    x_ND = x_ND.double()
    if how == "unit":
        return unit(x_ND)
    if how == "norm":
        return torch.nn.functional.layer_norm(x_ND, x_ND.shape[1:])
    return x_ND


def gather(
    statistics: Mapping[Point, Statistics],
    components: Sequence[Component],
    blocks: Sequence[int] | None = None,
    most: int = 400,
) -> tuple[Tensor, list[Point], Tensor, Tensor]:
    """Equally many states of each point from the reservoirs.

    Args:
        statistics: with reservoirs.
        components: which.
        blocks: which; None: all. `embed` and `norm_f` are always taken if they are asked for.
        most: states of a point.

    Returns:
        States [N, D] on the CPU, their points, the index of each state's point [N], and their
        positions [N].

    Raises:
        HeadlessError: no such point, or reservoirs too small.
    """
    points = [
        point
        for point in statistics
        if point.component in components
        and (blocks is None or point.component in ("embed", "norm_f") or point.block in blocks)
    ]
    if not points:
        raise HeadlessError(f"no states of {', '.join(components)} were measured")
    number = min(most, *(len(statistics[point].sample_KD) for point in points))
    if number < FEW:
        raise HeadlessError(
            f"{number} states a point are too few for pictures: measure with a larger reservoir"
        )
    states, positions = [], []
    for point in points:
        s = statistics[point]
        chosen = torch.linspace(0, len(s.sample_KD) - 1, number).round().long()
        states.append(s.sample_KD.cpu()[chosen].double())
        positions.append(s.sample_positions_K.cpu()[chosen])
    index_N = torch.arange(len(points)).repeat_interleave(number)
    return torch.cat(states), points, index_N, torch.cat(positions)


def umap_layout(x_ND: Tensor, seed: int = 0, neighbours: int = 15) -> np.ndarray:
    """Two coordinates a state by UMAP with cosine distance [N, 2]; the same ones every time.

    Raises:
        HeadlessError: umap-learn is not installed.
    """
    try:
        import umap
    except ImportError as error:
        raise HeadlessError("UMAP needs umap-learn: pip install umap-learn") from error
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")  # a seed means one thread
        layout = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed)
        return np.asarray(layout.fit_transform(x_ND.float().cpu().numpy()), dtype=np.float64)


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
        umap: also lay the components' states out by UMAP, which takes a minute.
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
        arrays[f"{name}_point"], arrays[f"{name}_position"] = index_N.numpy(), position_N.numpy()
        labels = (points, index_N.numpy(), position_N.numpy())
        pictures += _pictures(name, layouts, labels, scalars)
        if umap and name == "components":
            flat = umap_layout(x_ND, seed)
            arrays["components_umap"] = flat
            pictures.append(
                Picture(
                    "latents-umap",
                    "The same states by UMAP with cosine distance: neighbourhoods, not distances.",
                    lambda flat=flat, labels=labels: _draw(  # type: ignore[misc]
                        [(flat, (0, 1), ("UMAP 1", "UMAP 2"))], *labels[:2]
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
        panels.append((z_NK, (0, 1), (_axis(1, found.shares_K), _axis(2, found.shares_K)), title))
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
        lambda: _draw([p[:3] for p in panels], points, index_N.numpy(), [p[3] for p in panels]),
    )
    return Finding(
        "separation", "Attention against MLP", about, answer, scalars, arrays, (picture,), claims
    )


def _axis(k: int, shares_K: Any) -> str:
    return f"component {k} ({float(shares_K[k - 1]):.0%})"


def _pictures(name: str, layouts: Any, labels: Any, scalars: Mapping[str, float]) -> list[Picture]:
    points, index_N, position_N = labels
    panels = []
    for how in ("raw", "unit"):
        z_NK, shares_K = layouts[name, how]
        panels.append((z_NK, (0, 1), (_axis(1, shares_K), _axis(2, shares_K))))
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
            lambda: _draw(panels, points, index_N, ["raw", "unit vectors"]),
        )
    ]
    z_NK, shares_K = layouts[name, "unit"]
    if z_NK.shape[1] >= 6:
        pairs = [(0, 1), (2, 3), (4, 5)]
        grid = [(z_NK, p, tuple(_axis(i + 1, shares_K) for i in p)) for p in pairs]
        if name == "stream":
            inside = np.array([p.component == "post" for p in points])[index_N]
            grid = [(z[inside], p, names) for z, p, names in grid]
            found.append(
                Picture(
                    "latents-positions",
                    "The stream after all blocks, unit vectors, coloured by position; six "
                    f"components tell it with R² "
                    f"{scalars['latents/stream/unit/position_r2']:.2f}, 0 by chance.",
                    lambda: _draw_positions(grid, position_N[inside]),
                )
            )
        else:
            found.append(
                Picture(
                    f"latents-{name}-more",
                    "The first six components in pairs, unit vectors.",
                    lambda: _draw(grid, points, index_N),
                )
            )
    return found


def _draw(
    panels: Any, points: Sequence[Point], index_N: np.ndarray, titles: Sequence[str] = ()
) -> Any:
    """Scatters coloured by component, shaded by depth."""
    import matplotlib
    from matplotlib.lines import Line2D

    depth = max(1, max(p.block for p in points))

    def colour(point: Point) -> Any:
        early = 1 - min(max(point.block, 0) / depth, 1)
        return matplotlib.colormaps[MAPS[point.component]](0.4 + 0.55 * early)

    with drawing_style():
        figure = new_figure(11.2 if len(panels) > 1 else 5.6, 3.9)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        order = np.random.default_rng(0).permutation(len(index_N))  # nothing lies on top by rule
        shades = np.array([colour(p) for p in points])[index_N[order]]
        for panel, (z, (a, b), names) in zip(axes, panels, strict=True):
            panel.scatter(z[order, a], z[order, b], s=5, c=shades, alpha=0.75, linewidths=0)
            panel.set(xlabel=names[0], ylabel=names[1])
        for panel, title in zip(axes, titles, strict=False):
            panel.set_title(title)
        names = list(dict.fromkeys(p.component for p in points))
        handles = [
            Line2D([], [], marker="o", linestyle="", markersize=5, label=name,
                   color=matplotlib.colormaps[MAPS[name]](0.75))
            for name in names
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper left", ncols=len(names))
    return figure


def _draw_positions(panels: Any, position_N: np.ndarray) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 3.6)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (z, (a, b), names) in zip(axes, panels, strict=True):
            dots = panel.scatter(
                z[:, a], z[:, b], s=5, c=position_N, cmap="winter", alpha=0.75, linewidths=0
            )
            panel.set(xlabel=names[0], ylabel=names[1])
        figure.colorbar(dots, ax=axes, label="position", fraction=0.03)
    return figure
