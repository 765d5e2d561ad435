"""The pictures of outlier dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headless.analysis.by_depth import panels_of, write_title
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.capture import Point
from headless.pages.figures import (
    INK,
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)
from headless.pages.numbers import compact

FRAMES = 32  # of a film at most
SIDE = 64  # dimensions, as many as an example has tokens


def heat(points: list[Point], rms_PD: np.ndarray) -> Any:
    """Size by place in the stream (rows) and dimension (columns), logarithmic."""
    from matplotlib.colors import LogNorm

    shown = np.sort(np.argsort(rms_PD.max(axis=0))[::-1][:48])
    with drawing_style():
        figure, (panel,) = panels_of(1, height=1.2 + 0.16 * len(points))
        figure.set_size_inches(11.2, 1.5 + 0.14 * len(points))
        values = np.clip(rms_PD[:, shown], 0.3, None)
        image = panel.pcolormesh(values, cmap="magma_r", norm=LogNorm(0.3, max(10, values.max())))
        panel.grid(False)
        panel.set_xticks(np.arange(len(shown)) + 0.5, [str(d) for d in shown], rotation=90)
        every = max(1, len(points) // 15)
        names = [p.name.removeprefix("post/") for p in points]
        panel.set_yticks(np.arange(0, len(points), every) + 0.5, names[::every])
        panel.tick_params(axis="x", labelsize=7)
        panel.set(xlabel="dimension", ylabel="block")
        panel.invert_yaxis()
        bar = figure.colorbar(image, ax=panel, fraction=0.03, pad=0.01)
        bar.set_label("size / median dimension")
        bar.outline.set_visible(False)
        compact_ticks(bar.ax.yaxis, log=True)
    return figure


def massive(stream: list[tuple[Point, Statistics]]) -> Any:
    """The three largest dimensions' |x| and the median |x| by block."""
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.2)
        for panel, groups, title in (
            (panels[0], [FIRST], "position 0"),
            (panels[1], [REST], "other positions"),
        ):
            x = np.array([point.block for point, _ in stream])
            top = np.array(
                [s.largest_GD[groups].amax(dim=0).topk(3).values.tolist() for _, s in stream]
            )
            for place, name in enumerate(("largest dimension", "second", "third")):
                panel.plot(
                    x,
                    top[:, place],
                    color=series_color(place),
                    marker="o",
                    markersize=3,
                    label=name,
                )
            median = [float(s.sample_KD.double().abs().median()) for _, s in stream]
            panel.plot(x, median, color=MUTED, label="median |x|, other positions")
            panel.plot(x, [_gaussian_largest(s, groups[0]) for _, s in stream], ":", color=INK)
            panel.set(title=title, xlabel="block (−1: input)")
            compact_ticks(panel.yaxis, log=True)
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("|x|")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _gaussian_largest(s: Statistics, group: int) -> float:
    """Expected largest |x| of a Gaussian of the stream's typical size, in as many values."""
    from scipy.stats import norm

    width = s.powers_G4D.shape[-1]
    size = float(moments.rms(s, group).median())
    return size * float(norm.isf(0.5 / (float(s.count_G[group]) * width)))


def consistency(
    posts: list[tuple[int, Statistics]], arrays: Mapping[str, np.ndarray], null: float
) -> Any:
    """Jaccard of the largest dimensions by block."""
    blocks = [block for block, _ in posts]
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        for index, (name, label) in enumerate(
            (("jaccard_next", "with the next block"), ("jaccard_middle", "with the middle block"))
        ):
            y = arrays[name]
            color = series_color(index)
            panel.plot(blocks[: len(y)], y, color=color, marker="o", markersize=3, label=label)
        panel.axhline(null, ls="--", color=MUTED, lw=0.9)
        panel.set(xlabel="block", ylabel="Jaccard", ylim=(-0.03, 1.05))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize=8)
    return figure


def _three(posts: list[tuple[int, Statistics]]) -> list[tuple[int, Statistics]]:
    places = sorted({0, len(posts) // 2, len(posts) - 1})
    return [posts[place] for place in places]


def example(posts: list[tuple[int, Statistics]]) -> Any:
    """|x| of one text by token and dimension, in three blocks."""
    shown = _three(posts)
    with drawing_style():
        figure = new_figure(11.2, 3.8)
        for place, (block, s) in enumerate(shown):
            x_ED = s.example_ED.double().abs().numpy()
            dims = np.sort(np.argsort(x_ED.max(axis=0))[::-1][:24])
            panel = figure.add_subplot(1, len(shown), place + 1, projection="3d")
            rows, columns = np.meshgrid(np.arange(len(x_ED)), np.arange(len(dims)), indexing="ij")
            floor = max(float(np.median(x_ED)), 1e-12)
            height = np.log10(np.clip(x_ED[:, dims], floor, None))
            panel.plot_surface(
                rows, columns, height, cmap="viridis_r", linewidth=0, antialiased=True
            )
            panel.set_title(write_title(Point("post", block)))
            panel.set_xlabel("token")
            ticks = np.arange(0, len(dims), max(1, len(dims) // 4))
            panel.set_yticks(ticks, [str(dims[t]) for t in ticks])
            panel.set_ylabel("dimension")
            panel.set_zlabel("log10 |x|")
            panel.tick_params(labelsize=7)
            panel.set_box_aspect(None, zoom=0.85)
    return figure


def stream(posts: list[tuple[int, Statistics]]) -> Any:
    """Signed values of one text's first tokens and dimensions, by block."""
    places = np.unique(np.linspace(0, len(posts) - 1, min(8, len(posts))).astype(int))
    with drawing_style():
        figure, panels = panels_of(len(places), columns=4, height=2.7)
        for panel, place in zip(panels, places, strict=True):
            block, s = posts[place]
            x_ED = s.example_ED[:, :SIDE].double().numpy()
            scale = 5 * max(float(np.median(np.abs(x_ED))), 1e-12)
            panel.imshow(
                x_ED, cmap="RdBu", vmin=-scale, vmax=scale, aspect="auto", interpolation="nearest"
            )
            panel.grid(False)
            panel.set(title=write_title(Point("post", block)), xlabel="dimension")
        panels[0].set_ylabel("token")
    return figure


def stream_frame(
    posts: list[tuple[int, Statistics]], place: int, scale: float, small: float
) -> Any:
    """Signed values of one text's first tokens and dimensions after a block: one frame.

    Args:
        posts: of `states_of(statistics, "post")`.
        place: in `posts`.
        scale: the |x| from which on the colour is full: the same for all frames.
        small: the |x| up to which colours are linear; above it they are logarithmic.
    """
    from matplotlib.colors import AsinhNorm

    block, s = posts[place]
    x_ED = s.example_ED[:, :SIDE].double().numpy()
    with drawing_style():
        figure = new_figure(5.6, 5.0)
        panel = figure.subplots()
        image = panel.imshow(
            x_ED,
            cmap="RdBu",
            norm=AsinhNorm(small, -scale, scale),
            aspect="auto",
            interpolation="nearest",
        )
        panel.grid(False)
        panel.set(title=write_title(Point("post", block)), xlabel="dimension", ylabel="token")
        bar = figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02, extend="both")
        bar.outline.set_visible(False)
        bar.set_ticks(
            [-scale, -small, 0, small, scale],
            labels=[f"−{compact(scale, 2)}", f"−{compact(small, 2)}", "0"]
            + [compact(small, 2), compact(scale, 2)],
        )
        bar.minorticks_off()
    return figure


def stream_scale(posts: list[tuple[int, Statistics]]) -> tuple[float, float]:
    """One scale for all blocks: the |x| of full colour, and that of the end of the linear part.

    99 % of the last block's values lie within the first; the second is the middle block's median,
    so that the small values of early blocks are seen, too: the stream grows with depth.
    """
    last, middle = (
        posts[place][1].example_ED[1:, :SIDE].double().abs().numpy()
        for place in (len(posts) - 1, len(posts) // 2)
    )
    scale = max(float(np.quantile(last, 0.99)) if last.size else 0.0, 1e-12)
    small = float(np.median(middle)) if middle.size else 0.0
    return scale, min(max(small, 1e-3 * scale), 0.5 * scale)


def frames_of(posts: list[tuple[int, Statistics]]) -> list[int]:
    """Places in `posts` to show one after the other: all, or evenly `FRAMES` of them."""
    return np.unique(np.linspace(0, len(posts) - 1, FRAMES).round().astype(int)).tolist()
