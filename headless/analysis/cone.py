"""The cone itself: vectors seen along their mean direction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.by_depth import panels_of
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import TALK
from headless.errors import HeadlessError
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.cone import angles_to, cone_axes, isotropic_angle_density
from headless.geometry.projection import unit
from headless.pages.figures import INK, MUTED, SURFACE, drawing_style, new_figure, series_color

DRAWN = 4000  # vectors in a scatter
FOLLOWED = 1500  # of them whose way is followed over checkpoints
_WORDS = {"hidden": "last states", "head": "LM head"}
_IS = {"hidden": "are"}
_EDGES = np.arange(0.0, 181.0, 2.0)  # degrees
_ABOUT = (
    "Vectors of one kind (token embeddings, the rows of the LM head, last hidden states) are seen "
    "from the side: their mean direction points to the right, and the direction at right angles to "
    "it in which they vary most points up. Vectors that pointed everywhere would stand at 90 "
    "degrees to any direction, ever more exactly in more dimensions (standard deviation 57.3/√D "
    "degrees): that is the null. A cone is a set that stands at far less. Its half angle is the "
    "one that holds half, or 95 %, of the vectors. Where taking the mean away sends the angles "
    "back to 90 degrees, the cone was one common direction."
)


def cone(
    sets: Mapping[str, Tensor],
    *,
    count_V: Tensor | None = None,
    axes: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Finding:
    """Angles to the mean direction and the picture of the cone, for each set of vectors.

    Args:
        sets: rows [N, D] by name, all of one width, e.g. "embedding", "head" and "hidden" (a
            reservoir's sample); at least one.
        count_V: how often each token occurs, to colour the sets that have a row for each.
        axes: directions [3, D] by name to draw along, e.g. those in `arrays` of the last
            checkpoint, so that pictures over training can be compared; None: each set's own.
        seed: of the rows that are drawn.

    Raises:
        HeadlessError: no set, sets of different widths, or a set of fewer than two vectors.
    """
    if not sets or len({x.shape[1] for x in sets.values()}) != 1:
        raise HeadlessError("a cone needs vectors, all of one width")
    if any(len(x) < 2 for x in sets.values()):
        raise HeadlessError("a cone needs at least two vectors of each kind")
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    frames: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, x_ND in sets.items():
        x_ND = x_ND.detach().cpu().double()
        frame_AD = cone_axes(x_ND, min(3, x_ND.shape[1]))
        angles_N = angles_to(x_ND, frame_AD[0])
        low, half, high = np.quantile(angles_N.numpy(), [0.05, 0.5, 0.95])
        scalars |= {
            f"cone/{name}/angle": float(angles_N.mean()),
            f"cone/{name}/angle_05": float(low),
            f"cone/{name}/half_angle_50": float(half),
            f"cone/{name}/half_angle_95": float(high),
            f"cone/{name}/isotropic_angle": 90.0,
            f"cone/{name}/isotropic_std": 57.29578 / x_ND.shape[1] ** 0.5,
            f"cone/{name}/mean_cosine": float(mean_cosine(x_ND)),
            f"cone/{name}/mean_cosine/centred": float(mean_cosine(x_ND - x_ND.mean(dim=0))),
        }
        frames[name] = axes[name].double() if axes and name in axes else frame_AD
        drawn[name] = _rows(len(x_ND), generator)
        arrays[f"{name}/angles"] = angles_N.numpy()
        density, _ = np.histogram(arrays[f"{name}/angles"], _EDGES, density=True)
        arrays[f"{name}/angle_density"] = density
        arrays[f"{name}/isotropic_density"] = isotropic_angle_density(
            torch.from_numpy((_EDGES[:-1] + _EDGES[1:]) / 2), x_ND.shape[1]
        ).numpy()
        arrays[f"{name}/vectors"] = x_ND[_some(len(x_ND))].float().numpy()
        arrays[f"{name}/axes"] = frame_AD.numpy()
        arrays[f"{name}/coordinates"] = (x_ND[drawn[name]] @ frames[name].T).numpy()
        if count_V is not None and len(count_V) == len(x_ND):
            arrays[f"{name}/log_count"] = (
                count_V[drawn[name]].double().clamp(min=0.5).log10().numpy()
            )
    names = list(sets)
    for a, first in enumerate(names):
        for second in names[a + 1 :]:
            value = float(frames[first][0] @ frames[second][0])
            scalars[f"cone/{first}/{second}/axes_cosine"] = value
    width = next(iter(sets.values())).shape[1]
    pictures = [
        Picture(
            "cone-angles",
            "Angles of the vectors to their mean direction. Grey: directions drawn uniformly in as "
            "many dimensions (null).",
            lambda: _draw_angles(arrays, names, width),
            wide=False,
        ),
        Picture(
            "cone-plane",
            "The cone from the side. The cross is the origin, the lines hold half (solid) and 95 % "
            "(dashed) of the vectors; lighter points are rarer tokens. The dotted vertical line is "
            "where vectors that point everywhere would lie (null).",
            lambda: _draw_plane(arrays, scalars, names),
        ),
        Picture(
            "cone-space",
            "The directions of the vectors alone (length 1) along the mean direction and the two "
            "widest ones across it, with the cone that holds half of them.",
            lambda: _draw_space(sets, drawn, frames, scalars),
        ),
    ]
    if len(names) > 1:
        pictures.append(
            Picture(
                "cone-together",
                "All sets on one canvas, as unit vectors: along the first set's mean direction and "
                "along what is left of the second's at right angles to it.",
                lambda: _draw_together(sets, drawn, frames, names),
                wide=False,
            )
        )
    return Finding(
        name="cone",
        title="The cone",
        about=_ABOUT,
        answer=_answer(scalars, names, width),
        scalars=scalars,
        arrays=arrays,
        pictures=tuple(pictures),
        claims=_claims(scalars, names, width),
    )


def _rows(count: int, generator: torch.Generator) -> Tensor:
    if count <= DRAWN:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:DRAWN].sort().values


def _some(count: int) -> Tensor:
    """The same rows at every checkpoint."""
    return torch.linspace(0, count - 1, min(count, FOLLOWED)).round().long()


def _answer(scalars: Mapping[str, float], names: list[str], width: int) -> str:
    parts = [
        f"the {_WORDS.get(name, name)} at {scalars[f'cone/{name}/angle']:.1f}° (half of them "
        f"within {scalars[f'cone/{name}/half_angle_50']:.1f}°, mean cosine "
        f"{scalars[f'cone/{name}/mean_cosine']:.2f}, less the mean "
        f"{scalars[f'cone/{name}/mean_cosine/centred']:.4f})"
        for name in names
    ]
    null = 57.29578 / width**0.5
    return f"Mean angles to the mean direction: {'; '.join(parts)}; isotropic: 90 ± {null:.1f}°."


def _claims(scalars: Mapping[str, float], names: list[str], width: int) -> tuple[Claim, ...]:
    claims = []
    for name in names:
        angle = scalars[f"cone/{name}/angle"]
        centred = abs(scalars[f"cone/{name}/mean_cosine/centred"])
        claims.append(
            Claim(
                TALK,
                f"the {_WORDS.get(name, name)} {_IS.get(name, 'is')} cone-shaped",
                angle < 75.0,
                f"mean angle to the mean direction {angle:.1f}°, below 75° (isotropic: 90°)",
            )
        )
        claims.append(
            Claim(
                "Gao et al. 2019",
                f"the cone of the {_WORDS.get(name, name)} is one common direction",
                centred < 0.01 if angle < 75.0 else None,
                f"mean cosine less the mean {centred:.4f}, below 0.01",
            )
        )
    return tuple(claims)


def _draw_angles(arrays: Mapping[str, np.ndarray], names: list[str], width: int) -> Any:
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.2)
        grid = torch.linspace(0.5, 179.5, 719, dtype=torch.float64)
        null = isotropic_angle_density(grid, width).numpy()
        panel.fill_between(
            grid.numpy(), null, color=MUTED, alpha=0.3, lw=0, label="isotropic (null)"
        )
        for index, name in enumerate(names):
            angles = arrays[f"{name}/angles"]
            counts, edges = np.histogram(angles, np.arange(0, 181, 2))
            density = counts / len(angles) / 2
            panel.stairs(density, edges, color=series_color(index), lw=1.4, label=name)
        panel.set(xlim=(0, 180), xlabel="degrees to the mean direction", ylabel="density")
        panel.set_xticks(np.arange(0, 181, 30))
        panel.legend(fontsize=8)
    return figure


def _draw_plane(
    arrays: Mapping[str, np.ndarray], scalars: Mapping[str, float], names: list[str]
) -> Any:
    with drawing_style():
        figure, panels = panels_of(len(names), height=3.7)
        for index, (panel, name) in enumerate(zip(panels, names, strict=True)):
            xy = arrays[f"{name}/coordinates"][:, :2]
            counts = arrays.get(f"{name}/log_count")
            options: dict[str, Any] = {"color": series_color(index), "alpha": 0.35}
            if counts is not None:
                options = {"c": counts, "cmap": "viridis_r"}
            if counts is not None:  # what occurs on top of what never does
                order = np.argsort(counts, kind="stable")
                xy, options["c"] = xy[order], counts[order]
            dots = panel.scatter(xy[:, 0], xy[:, 1], s=3, lw=0, rasterized=True, **options)
            reach = float(np.quantile(np.hypot(xy[:, 0], xy[:, 1]), 0.995)) * 1.1
            for key, style in (("half_angle_50", "-"), ("half_angle_95", "--")):
                angle = np.radians(scalars[f"cone/{name}/{key}"])
                for sign in (-1, 1):
                    tip = reach * np.cos(angle), sign * reach * np.sin(angle)
                    panel.plot([0, tip[0]], [0, tip[1]], style, color=INK, lw=0.9)
            panel.axvline(0, ls=":", color=MUTED, lw=0.9)
            panel.plot([0], [0], "+", color=INK, markersize=11, markeredgewidth=1.8)
            side = max(0.6 * reach, 1.1 * float(np.quantile(np.abs(xy[:, 1]), 0.995)))
            panel.set(xlim=(-0.5 * reach, reach), ylim=(-side, side))
            panel.set_aspect("equal")
            panel.set(title=name, xlabel="along the mean direction")
            if counts is not None:
                bar = figure.colorbar(dots, ax=panel, fraction=0.04, pad=0.02)
                bar.set_label("log10 count")
                bar.outline.set_visible(False)
        panels[0].set_ylabel("widest direction across it")
    return figure


def _draw_space(
    sets: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    frames: Mapping[str, Tensor],
    scalars: Mapping[str, float],
) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 4.0)
        for index, (name, x_ND) in enumerate(sets.items()):
            panel = figure.add_subplot(1, len(sets), index + 1, projection="3d")
            rows_ND = unit(x_ND.detach().cpu()[drawn[name]][:1500])
            xyz = (rows_ND @ frames[name].T).numpy()
            xyz = np.pad(xyz, ((0, 0), (0, 3 - xyz.shape[1])))
            panel.scatter(
                xyz[:, 1], xyz[:, 2], xyz[:, 0], s=2, alpha=0.35, lw=0, color=series_color(index)
            )
            half = np.radians(scalars[f"cone/{name}/half_angle_50"])
            height, turn = np.meshgrid(np.linspace(0, 1, 12), np.linspace(0, 2 * np.pi, 40))
            radius = height * np.sin(half)
            panel.plot_wireframe(
                radius * np.cos(turn),
                radius * np.sin(turn),
                height * np.cos(half),
                color=INK,
                lw=0.4,
                alpha=0.35,
                rstride=4,
                cstride=4,
            )
            panel.plot([0], [0], [0], "+", color=INK, markersize=10)
            panel.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-0.5, 1), title=name)
            panel.set_zlabel("along the mean")
            panel.tick_params(labelsize=7)
            panel.set_box_aspect((1, 1, 0.8), zoom=0.9)
    return figure


def _draw_together(
    sets: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    frames: Mapping[str, Tensor],
    names: list[str],
) -> Any:
    along_D = frames[names[0]][0]
    second_D = frames[names[1]][0]
    left_D = second_D - (second_D @ along_D) * along_D
    if float(left_D.norm()) < 1e-6:  # both point one way
        left_D = frames[names[0]][1]
    plane_2D = torch.stack([along_D, left_D / left_D.norm()])
    with drawing_style():
        figure, (panel,) = panels_of(1, height=4.4)
        for index, name in enumerate(names):
            xy = (unit(sets[name].detach().cpu()[drawn[name]]) @ plane_2D.T).numpy()
            color = series_color(index)
            panel.scatter(
                xy[:, 0], xy[:, 1], s=3, alpha=0.3, lw=0, color=color, label=name, rasterized=True
            )
            mean = xy.mean(axis=0)
            panel.plot([0, mean[0]], [0, mean[1]], color=SURFACE, lw=3.5)
            panel.plot([0, mean[0]], [0, mean[1]], color=color, lw=2.0)
        panel.plot([0], [0], "+", color=INK, markersize=11, markeredgewidth=1.8)
        panel.set_aspect("equal")
        panel.set(xlabel=f"mean direction of the {names[0]}", ylabel="across it")
        panel.legend(fontsize=8, markerscale=3)
    return figure
