"""Moving pictures of training: a frame a checkpoint, the axes the same in all frames.

They are made from the findings of each checkpoint alone. What moves in them is the model: the same
rows of the tables and the same states of the same text are shown, along directions that are those
of the last checkpoint, within limits that hold every frame. `draw` of each frame draws it whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis import record
from headless.analysis.drawing.film import film_of
from headless.analysis.finding import Animation, Finding, Picture
from headless.pages.figures import (
    INK,
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)

FRAMES = 24  # of a film at most
EDGES = np.arange(0.0, 181.0, 2.0)  # of the cone's angles, degrees
FRAME = "one frame a checkpoint"
PANELS = {"components": "what attention and MLPs add", "stream": "the residual stream"}

Steps = Mapping[int, Sequence[Finding]]


def films(by_step: Steps) -> list[Animation]:
    """All that the findings allow; each where every checkpoint has its numbers."""
    makers: tuple[Callable[[Steps], Animation | None], ...] = (
        cone_film,
        spectra_film,
        latents_film,
    )
    made = (maker(by_step) for maker in makers)
    return [*(film for film in made if film is not None), *record_films(by_step)]


def frame_steps(steps: Sequence[int], most: int = FRAMES) -> list[int]:
    """Which checkpoints are shown: all, or the first, the last and some between, evenly on a
    logarithmic axis."""
    ordered = sorted(steps)
    if len(ordered) <= most:
        return ordered
    positive = np.array([step for step in ordered if step > 0])
    targets = np.geomspace(positive[0], positive[-1], most - (len(ordered) - len(positive)))
    nearest = {int(positive[np.abs(np.log(positive / t)).argmin()]) for t in targets}
    return sorted(nearest | {step for step in ordered if step <= 0})


def _arrays(by_step: Steps, finding: str) -> dict[int, Mapping[str, np.ndarray]]:
    """An analysis' arrays at the checkpoints that have it, of the steps that are shown."""
    found = {
        step: one.arrays
        for step in frame_steps(list(by_step))
        for one in by_step[step]
        if one.name == finding
    }
    return found if len(found) > 1 else {}


def _common(arrays: Mapping[int, Mapping[str, np.ndarray]], ending: str) -> list[str]:
    """Names before an ending that every checkpoint has, in their order."""
    every = list(arrays.values())
    names = [key.removesuffix(ending) for key in every[-1] if key.endswith(ending)] if every else []
    return [name for name in names if all(name + ending in one for one in every)]


def _frames(arrays: Mapping[int, Any]) -> tuple[list[int], tuple[str, ...]]:
    steps = list(arrays)
    return steps, tuple(f"step {step:,}" for step in steps)


def _stamp(figure: Any, step: int) -> None:
    figure.suptitle(f"step {step:,}", x=0.995, ha="right", fontsize=11, color=INK)


def _limits(values: Sequence[np.ndarray], margin: float = 0.05) -> tuple[float, float]:
    every = np.concatenate([np.asarray(v, dtype=float).ravel() for v in values])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    room = margin * (high - low) or 1.0
    return low - room, high + room


def _window(clouds: Sequence[np.ndarray], share: float = 0.995) -> list[tuple[float, float]]:
    """A square [x, y] that holds the origin and most points of every cloud, upright about 0."""
    ends = np.array([np.quantile(xy[:, 0], [1 - share, share]) for xy in clouds])
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    tall = max(float(np.quantile(np.abs(xy[:, 1]), share)) for xy in clouds)
    half = 1.06 * max((high - low) / 2, tall) or 1.0
    middle = (low + high) / 2
    return [(middle - half, middle + half), (-half, half)]


def cone_film(by_step: Steps) -> Animation | None:
    """The cone from the side, and its angles."""
    arrays = _arrays(by_step, "cone")
    names = _common(arrays, "/vectors")
    if not names:
        return None
    steps, labels = _frames(arrays)
    last = arrays[steps[-1]]
    # Along the last checkpoint's mean direction and the widest one across it, at every checkpoint.
    flat = {
        (step, name): arrays[step][f"{name}/vectors"] @ last[f"{name}/axes"][:2].T
        for step in steps
        for name in names
    }
    windows = {name: _window([flat[step, name] for step in steps]) for name in names}
    density = {
        (s, n): np.histogram(arrays[s][f"{n}/angles"], EDGES, density=True)[0]
        for s in steps
        for n in names
    }
    highest = max(float(values.max()) for values in density.values()) * 1.05

    def draw(index: int) -> Any:
        step = steps[index]
        with drawing_style():
            figure = new_figure(10.2, 5.6)
            panels = figure.subplots(2, len(names), squeeze=False, height_ratios=(1.5, 1))
            for column, name in enumerate(names):
                above, below = panels[0][column], panels[1][column]
                color = series_color(column)
                x, y = flat[step, name].T
                above.scatter(x, y, s=3, lw=0, alpha=0.4, color=color)
                above.axvline(0, ls=":", color=MUTED, lw=0.9)
                above.plot([0], [0], "+", color=INK, markersize=11, markeredgewidth=1.8)
                above.set(xlim=windows[name][0], ylim=windows[name][1], aspect="equal")
                above.set(title=name, xlabel="last checkpoint's mean direction")
                null = last.get(f"{name}/isotropic_density")
                if null is not None:
                    below.stairs(null, EDGES, fill=True, color=MUTED, alpha=0.3)
                below.stairs(density[step, name], EDGES, color=color, lw=1.4)
                below.set(xlim=(0, 180), ylim=(0, highest), xlabel="degrees to their own mean")
                below.set_xticks(np.arange(0, 181, 30))
            panels[0][0].set_ylabel("widest direction across it")
            panels[1][0].set_ylabel("density")
            _stamp(figure, step)
        return figure

    return Animation(
        "film-cone",
        f"The cone comes about: {FRAME}. Above, the same vectors along two directions of the last "
        "checkpoint (the cross is the origin), within limits that hold 99.5 % of every frame. "
        "Below, the angles to each checkpoint's own mean direction; grey: directions drawn "
        "uniformly (null).",
        labels,
        draw,
    )


def spectra_film(by_step: Steps) -> Animation | None:
    """Singular values of embeddings and head."""
    arrays = _arrays(by_step, "table_spectra")
    names = _common(arrays, "/raw")
    if not names:
        return None
    steps, labels = _frames(arrays)
    kinds = {"raw": ("as it is", "-"), "centred": ("without the mean row", "-")}
    kinds["shuffled"] = ("entries shuffled (null)", "--")
    values = [
        _positive(one[key]) for one in arrays.values() for key in one if key.split("/")[0] in names
    ]
    low, high = min(v.min() for v in values if len(v)), max(v.max() for v in values if len(v))

    def draw(index: int) -> Any:
        one = arrays[steps[index]]
        with drawing_style():
            figure = new_figure(max(5.6, 4.6 * len(names)), 3.7)
            panels = figure.subplots(1, len(names), squeeze=False)[0]
            for panel, name in zip(panels, names, strict=True):
                for color, (kind, (label, style)) in enumerate(kinds.items()):
                    y = _positive(one.get(f"{name}/{kind}", np.zeros(0)))
                    shade = MUTED if kind == "shuffled" else series_color(color)
                    panel.plot(np.arange(1, len(y) + 1), y, style, color=shade, label=label)
                panel.set(title=name, xlabel="rank")
                panel.set(xlim=(0.9, len(one[f"{name}/raw"]) * 1.1))
                panel.set(ylim=(low / 1.2, high * 1.2))
                for axis in (panel.xaxis, panel.yaxis):
                    compact_ticks(axis, log=True)
            panels[0].set_ylabel("singular value")
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, fontsize=8, loc="outside lower center", ncols=3)
            _stamp(figure, steps[index])
        return figure

    return Animation(
        "film-spectra",
        f"Singular values of embeddings and head, {FRAME}. One value that leaves the others behind "
        "is a direction that all rows share; dashed: the same entries shuffled (null).",
        labels,
        draw,
        wide=len(names) > 1,
    )


def _positive(values: np.ndarray) -> np.ndarray:
    return values[values > 1e-7 * values.max()] if len(values) else values


def latents_film(by_step: Steps) -> Animation | None:
    """States in the plane of the last checkpoint's principal components."""
    import torch

    from headless.analysis.drawing.cloud import MAPS
    from headless.geometry import principal_axes, unit

    arrays = _arrays(by_step, "latents")
    names = _common(arrays, "_states")
    if not names:
        return None
    steps, labels = _frames(arrays)
    last = arrays[steps[-1]]
    flat: dict[tuple[int, str], np.ndarray] = {}
    shades: dict[str, np.ndarray] = {}
    shares = []
    for name in names:
        axes = principal_axes(unit(torch.from_numpy(last[f"{name}_states"])), 2)
        shares.append(f"{100 * float(axes.shares_K.sum()):.0f} %")
        for step in steps:
            states_ND = unit(torch.from_numpy(arrays[step][f"{name}_states"]))
            flat[step, name] = axes(states_ND).numpy()
        colors = _shades(last[f"{name}_names"].tolist(), MAPS)
        shades[name] = colors[last[f"{name}_states_point"]]
    limits = {
        name: [_limits([flat[s, name][:, k] for s in steps]) for k in (0, 1)] for name in names
    }
    order = np.random.default_rng(0).permutation(len(last[f"{names[0]}_states"]))

    def draw(index: int) -> Any:
        from matplotlib import colormaps
        from matplotlib.lines import Line2D

        step = steps[index]
        with drawing_style():
            figure = new_figure(4.9 * len(names), 4.4)
            panels = figure.subplots(1, len(names), squeeze=False)[0]
            for panel, name in zip(panels, names, strict=True):
                xy = flat[step, name]
                chosen = order[order < len(xy)]  # nothing lies on top by rule
                panel.scatter(*xy[chosen].T, s=5, c=shades[name][chosen], alpha=0.75, lw=0)
                panel.set(xlim=limits[name][0], ylim=limits[name][1], title=PANELS.get(name, name))
                panel.set(xlabel="component 1", ylabel="component 2")
                kinds = dict.fromkeys(t.partition("/")[0] for t in last[f"{name}_names"].tolist())
                handles = [
                    Line2D([], [], marker="o", ls="", color=colormaps[MAPS[k]](0.75), label=k)
                    for k in kinds
                ]
                place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": len(kinds)}
                panel.legend(handles=handles, fontsize=8, markerscale=0.8, **place)
            _stamp(figure, step)
        return figure

    return Animation(
        "film-latents",
        f"The same states as unit vectors, {FRAME}, along the first two principal components of "
        f"the last checkpoint, which hold {', '.join(shares)} of the variance there; dark: early "
        "blocks.",
        labels,
        draw,
    )


def _shades(names: Sequence[str], maps: Mapping[Any, str]) -> np.ndarray:
    """A colour [P, 4] for each point by its name: the component's, dark for early blocks."""
    from matplotlib import colormaps

    found = [(component, block) for component, _, block in (n.partition("/") for n in names)]
    depth = max([1, *(int(block) for _, block in found if block)])
    ends = {"embed": 0, "norm_f": depth}
    return np.array(
        [
            colormaps[maps[c]](0.95 - 0.55 * (int(block) if block else ends.get(c, 0)) / depth)
            for c, block in found
        ]
    )


def record_films(by_step: Steps) -> Iterator[Animation]:
    """Those of figures that have one."""
    shown = frame_steps(list(by_step))
    for last in by_step[max(by_step)]:
        if not isinstance(last, record.Finding):
            continue
        steps = {
            step: one
            for step in shown
            for one in by_step[step]
            if one.name == last.name and isinstance(one, record.Finding)
        }
        for figure in last.figures:
            if figure.film and (film := film_of(steps, figure.name)):
                yield film


def overlay(by_step: Steps) -> Picture | None:
    """All checkpoints in one panel each: spectra, angles and the mean cosine, light to dark."""
    panels: list[tuple[str, str, str, dict[int, tuple[np.ndarray, np.ndarray]]]] = []
    curves: dict[int, tuple[np.ndarray, np.ndarray]]
    tables = _arrays(by_step, "table_spectra")
    for name in _common(tables, "/raw"):
        lines = {step: _positive(one[f"{name}/raw"]) for step, one in tables.items()}
        curves = {step: (np.arange(1, len(y) + 1), y) for step, y in lines.items()}
        panels.append((f"singular values, {name}", "rank", "log", curves))
    lines = {
        step: one.values("", *record.STREAM)
        for step in frame_steps(list(by_step))
        for one in by_step[step]
        if isinstance(one, record.Finding) and one.name == "anisotropy" and one.series
    }
    if len(lines) > 1:
        curves = {step: (np.arange(len(y)) - 1, y) for step, y in lines.items()}
        panels.append(("mean cosine by layer", "block (−1: input)", "linear", curves))
    cones = _arrays(by_step, "cone")
    for name in _common(cones, "/angle_density"):
        curves = {s: (EDGES[:-1] + 1, one[f"{name}/angle_density"]) for s, one in cones.items()}
        panels.append((f"angles, {name}", "degrees to the mean", "linear", curves))
    if not panels:
        return None
    return Picture(
        "over-training-overlay",
        "Every checkpoint, light (first) to dark (last): singular values, mean cosine by layer, "
        "angles to the mean direction.",
        lambda: _draw_overlay(panels),
    )


def _draw_overlay(
    panels: Sequence[tuple[str, str, str, Mapping[int, tuple[np.ndarray, np.ndarray]]]],
) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    from headless.analysis.by_depth import depth_colors, panels_of

    steps = sorted({step for _, _, _, curves in panels for step in curves})
    colors = dict(zip(steps, depth_colors(len(steps)), strict=True))
    with drawing_style():
        figure, axes = panels_of(len(panels), height=2.9)
        for panel, (title, name, scale, curves) in zip(axes, panels, strict=True):
            for step, (x, y) in curves.items():
                panel.plot(x, y, color=colors[step], lw=1.1)
            panel.set(title=title, xlabel=name)
            if name.startswith("degrees"):
                panel.set(xlim=(0, 180), xticks=range(0, 181, 30))
            if scale == "log":
                for axis in (panel.xaxis, panel.yaxis):
                    compact_ticks(axis, log=True)
        mapping = ScalarMappable(
            Normalize(-0.5, len(steps) - 0.5), ListedColormap(depth_colors(len(steps)))
        )
        bar = figure.colorbar(mapping, ax=axes, fraction=0.02, pad=0.01)
        shown = sorted({0, len(steps) // 2, len(steps) - 1})
        bar.set_ticks(shown, labels=[f"{steps[place]:,}" for place in shown])
        bar.set_label("step")
        bar.outline.set_visible(False)
    return figure
