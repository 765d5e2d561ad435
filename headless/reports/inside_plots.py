"""The pictures of the insides of several models, on common axes, one colour a group."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headless.pages.figures import (
    INK,
    MUTED,
    compact_ticks,
    drawing_style,
    new_figure,
    series_color,
)
from headless.reports.groups import Group
from headless.reports.inside_reading import (
    analysed,
    angle_density,
    array_of,
    by_block,
    last_spectrum,
)
from headless.reports.plots import WIDE, Curve, legend
from headless.reports.reading import Run

Read = Callable[[Run], Curve | None]
Panel = tuple[str, Read, Read | None]  # title, the curve, its null model


def depth(groups: Sequence[Group]) -> Any | None:
    """Mean cosine, effective rank, norm and the largest dimension by block."""
    blocks = {
        len(values)
        for group in groups
        for run in analysed(group)
        if (values := by_block(run, "norms/post/*/rest")) is not None
        or (values := by_block(run, "anisotropy/post/*")) is not None
    }
    shared = len(blocks) <= 1

    def along(pattern: str, relative: bool = False) -> Read:
        def read(run: Run) -> Curve | None:
            values = by_block(run, pattern)
            if values is None:
                return None
            x = np.arange(len(values), dtype=float)
            if not shared:
                x = (x + 1) / len(values)
            return x, values / ((run.width or np.nan) if relative else 1)

        return read

    panels: list[Panel] = [
        ("mean cosine", along("anisotropy/post/*"), along("anisotropy/post/*/shuffled")),
        (
            "entropy rank, share of the width",
            along("covariance_spectra/post/*/entropy_rank", relative=True),
            None,
        ),
        ("mean norm", along("norms/post/*/rest"), None),
        ("largest over median dimension", along("outliers/post/*/largest_ratio"), None),
    ]
    x = "block" if shared else "depth, share of the blocks"
    return _row(groups, panels, x, log_y=(False, False, True, True), whole=shared)


def spectra(groups: Sequence[Group]) -> Any | None:
    """Singular values of embeddings and head, eigenvalues of last states, sizes of dimensions."""
    widths = {run.width for group in groups for run in analysed(group)}
    shared = len(widths) <= 1

    def ranked(read: Callable[[Run], np.ndarray | None], power: float) -> Read:
        """Over the root mean square (power 2) or the mean (1), so that scale is no difference."""

        def curve(run: Run) -> Curve | None:
            values = read(run)
            if values is None or values.ndim != 1 or not np.nanmax(values) > 0:
                return None
            size = float(np.nanmean(values**power) ** (1 / power)) if power else 1.0
            rank = np.arange(1, len(values) + 1, dtype=float)
            kept = values > 1e-7 * np.nanmax(values)
            return (rank if shared else rank / len(values))[kept], (values / size)[kept]

        return curve

    def table(name: str, kind: str) -> Read:
        return ranked(lambda run: array_of(run, "table_spectra", f"{name}/{kind}"), 2)

    panels: list[Panel] = [
        ("embedding: singular values", table("embedding", "raw"), table("embedding", "shuffled")),
        ("LM head: singular values", table("head", "raw"), table("head", "shuffled")),
        ("last states: eigenvalues", ranked(last_spectrum, 1), None),
        ("last block: dimensions", ranked(lambda r: array_of(r, "outliers", "rms_last"), 0), None),
    ]
    x = "rank" if shared else "rank, share of all"
    return _row(groups, panels, x, log_x=True, log_y=(True,) * 4)


def angles(groups: Sequence[Group]) -> Any | None:
    """Angles to the mean direction, against directions drawn uniformly."""

    def density(name: str) -> Read:
        def read(run: Run) -> Curve | None:
            values = angle_density(run, name)
            return None if values is None else (_middles(values), values)

        return read

    def null(name: str) -> Read:
        def read(run: Run) -> Curve | None:
            values = array_of(run, "cone", f"{name}/isotropic_density")
            if values is not None:
                return _middles(values), values
            if density(name)(run) is None or not run.width:
                return None
            x = np.arange(1.0, 180.0, 2.0)  # an analysis before it wrote its null: sin^(D-2)
            log_y = (run.width - 2) * np.log(np.sin(np.radians(x)))
            y = np.exp(log_y - log_y.max())
            return x, y / (2 * y.sum())

        return read

    names = ("embedding", "head", "hidden")
    titles = ("embedding", "LM head", "last states")
    panels: list[Panel] = [
        (title, density(name), null(name)) for name, title in zip(names, titles, strict=True)
    ]
    return _row(groups, panels, "degrees to the mean direction", ticks=range(0, 181, 30))


def _middles(density: np.ndarray) -> np.ndarray:
    return (np.arange(len(density)) + 0.5) * 180 / len(density)


def _row(
    groups: Sequence[Group],
    panels: Sequence[Panel],
    x_name: str,
    *,
    log_x: bool = False,
    log_y: Sequence[bool] = (),
    whole: bool = False,
    ticks: range | None = None,
) -> Any | None:
    """Panels side by side; those that no group has anything for are left out."""
    chosen = []
    for index, (title, read, null) in enumerate(panels):
        curves = {group.index: _curves(group, read) for group in groups}
        if any(curves.values()):
            nulls = [curve for g in groups for curve in (_curves(g, null) if null else [])[:1]]
            chosen.append((title, curves, nulls, bool(log_y) and log_y[index]))
    if not chosen:
        return None
    with drawing_style():
        figure = new_figure(WIDE * (0.1 + 0.225 * max(len(chosen), 2)), 3.1)
        axes = figure.subplots(1, len(chosen), squeeze=False)[0]
        dashed = False
        for panel, (title, curves, nulls, log) in zip(axes, chosen, strict=True):
            for x, y in _distinct(nulls):
                panel.plot(x, y, color=MUTED, lw=0.9, ls=(0, (3.2, 2.2)))
                dashed = True
            for group in groups:
                _draw(panel, group, curves[group.index])
            panel.set(title=title, xlabel=x_name)
            if log:
                compact_ticks(panel.yaxis, log=True)
            else:
                panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
            if log_x:
                compact_ticks(panel.xaxis, log=True)
            if whole:
                panel.xaxis.get_major_locator().set_params(integer=True)
            if ticks is not None:
                panel.set(xlim=(ticks[0], ticks[-1]), xticks=list(ticks))
            if title == "mean cosine":
                panel.axhline(0, color=INK, lw=0.7)
        extra = [("null model", "dashed")] if dashed else []
        legend(figure, [g for g in groups if any(c[g.index] for _, c, _, _ in chosen)], extra)
    return figure


def _curves(group: Group, read: Read) -> list[Curve]:
    found = [curve for run in analysed(group) if (curve := read(run)) is not None]
    return [(x, y) for x, y in found if np.isfinite(y).any()]


def _distinct(curves: Sequence[Curve]) -> list[Curve]:
    """Without those that lie on another one: null models of models of one shape are one line."""
    kept: list[Curve] = []
    for x, y in curves:
        if not any(
            len(y) == len(b) and np.allclose(y, b, rtol=0.02, equal_nan=True) for _, b in kept
        ):
            kept.append((x, y))
    return kept


def _draw(panel: Any, group: Group, curves: Sequence[Curve]) -> None:
    """Thin lines for single runs, a thick one for their mean where they have the same places."""
    color = series_color(group.index)
    alike = [y for x, y in curves if len(x) == len(curves[0][0])]
    if len(curves) > 1:
        for x, y in curves:
            panel.plot(x, y, color=color, lw=0.7, alpha=0.45)
    if curves:
        x = curves[0][0]
        marker = "o" if len(x) <= 32 else None
        panel.plot(x, np.mean(alike, axis=0), color=color, marker=marker, markersize=3)
