"""What each attention head gives to attention's last matrix: norms of heads by block."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headless.analysis.by_depth import panels_of, states_of
from headless.analysis.finding import Finding, Picture
from headless.analysis.states.accumulators import REST, Statistics
from headless.analysis.states.capture import Point
from headless.errors import HeadlessError
from headless.pages.figures import drawing_style

ABOUT = (
    "Each attention head gives a weighted mean of its values; attention's last matrix reads all "
    "heads side by side. Norms are root mean squares over all tokens but each sequence's first. "
    "A head whose norm is far below the others' has little to add, whatever the matrix makes of "
    "it. Evenness is the number of heads that would share a block's sum of squares equally "
    "((Σs)²/Σs², s a head's mean square), over the number of heads: 1 where all are alike."
)


def head_outputs(statistics: Mapping[Point, Statistics], heads: int) -> Finding:
    """Norms of the heads' outputs in every block.

    Args:
        statistics: of `measure` at `heads` points (see `inner_points_of`).
        heads: of a block.

    Raises:
        HeadlessError: no such point was measured.
    """
    blocks = states_of(statistics, "heads")
    if not blocks:
        raise HeadlessError("no heads point was measured: measure the inner points, too")
    squares = np.stack(
        [
            (s.powers_G4D[REST, 1] / s.count_G[REST]).numpy().reshape(heads, -1).sum(axis=1)
            for _, s in blocks
        ]
    )
    norms_BH = np.sqrt(squares)
    even_B = squares.sum(axis=1) ** 2 / np.square(squares).sum(axis=1) / heads
    scalars: dict[str, float] = {}
    for row, (block, _) in enumerate(blocks):
        key = f"head_outputs/{block:02d}"
        scalars[f"{key}/mean_norm"] = float(norms_BH[row].mean())
        scalars[f"{key}/largest_share"] = float(squares[row].max() / squares[row].sum())
        scalars[f"{key}/evenness"] = float(even_B[row])
    row, head = np.unravel_index(norms_BH.argmax(), norms_BH.shape)
    return Finding(
        name="head_outputs",
        title="What the heads give",
        about=ABOUT,
        answer=(
            f"Evenness of the {heads} heads is {np.median(even_B):.2f} in the median block, "
            f"{even_B.min():.2f} in block {blocks[int(even_B.argmin())][0]} where they differ "
            f"most. The largest norm, {norms_BH[row, head]:.3g}, is that of head {head} of block "
            f"{blocks[int(row)][0]}; the mean of all is {norms_BH.mean():.3g}."
        ),
        scalars=scalars,
        arrays={"norms": norms_BH},
        pictures=(
            Picture(
                "head-norms",
                "Root mean square norm of each head's output over the mean of its block; heads "
                "are sorted within each block.",
                lambda: _draw(norms_BH, [block for block, _ in blocks]),
                wide=False,
            ),
        ),
    )


def _draw(norms_BH: np.ndarray, blocks: list[int]) -> Any:
    relative_BH = np.sort(norms_BH / norms_BH.mean(axis=1, keepdims=True), axis=1)[:, ::-1]
    heads = relative_BH.shape[1]
    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.0)
        image = panel.imshow(
            relative_BH.T,
            aspect="auto",
            origin="lower",
            cmap="viridis_r",
            vmin=0,
            interpolation="nearest",
            extent=(blocks[0] - 0.5, blocks[-1] + 0.5, 0.5, heads + 0.5),
        )
        panel.grid(False)
        panel.set(xlabel="block", ylabel="head, by rank")
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_major_locator().set_params(integer=True)
        bar = figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02)
        bar.set_label("norm over the block's mean")
        bar.outline.set_visible(False)
    return figure
