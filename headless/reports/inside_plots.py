"""The pictures of the insides of several models, on common axes, one colour a group."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headless.analysis import tables
from headless.pages.figures import INK, MUTED, compact_ticks, drawing_style, new_figure
from headless.reports.groups import Group, runs_of
from headless.reports.plots import DASHES, WIDE, Curve, Read, curves_of, draw, legend
from headless.runs.run import Run
from headless.structured import is_number


@dataclass(frozen=True)
class Panel:
    """A curve of every run over one x, and of its null model."""

    title: str
    read: Read
    null: Read | None = None
    log: bool = False


def by_block(run: Run, place: str, measure: str = "") -> np.ndarray | None:
    """Numbers of the blocks [L], NaN where one is not finite: of "norms/post" the "rest"."""
    scalars = run.findings.get(place.split("/")[0], {}).get("scalars") or {}
    _, rows, blocks = tables.by_block(scalars)
    row = rows.get(f"{place}/*/{measure}".removesuffix("/"), {})
    values = [row[block] for block in blocks if block in row]
    return np.array([float(v) if is_number(v) else np.nan for v in values]) if values else None


def finding_array(run: Run, finding: str, name: str) -> np.ndarray | None:
    """An array of a finding, NaN where an entry was not finite; None where there is none."""
    entries = (run.findings.get(finding, {}).get("arrays") or {}).get(name)
    if not isinstance(entries, list) or not entries:
        return None
    try:
        values = np.array(entries, dtype=float)
    except (TypeError, ValueError):  # names, or rows of several lengths
        return None
    return values if values.ndim == 1 else None


def last_spectrum(run: Run) -> np.ndarray | None:
    """Eigenvalues of the covariance of what the head sees: after the final norm, or the last
    block."""
    finding = "covariance_spectra"
    names = run.findings.get(finding, {}).get("arrays") or {}
    posts = sorted((n for n in names if re.fullmatch(r"post/\d+/eigenvalues", n)), reverse=True)
    spectra = (finding_array(run, finding, name) for name in ("norm_f/eigenvalues", *posts))
    return next((values for values in spectra if values is not None), None)


def angle_density(run: Run, name: str) -> np.ndarray | None:
    """Density per degree of a set's angles to its mean direction, in equal bins over 0 to 180."""
    density, angles = (
        finding_array(run, "cone", f"{name}/{key}") for key in ("angle_density", "angles")
    )
    if density is None and angles is not None:
        density, _ = np.histogram(angles, np.arange(0, 181, 2.0), density=True)
    return density


def depth(groups: Sequence[Group]) -> Any | None:
    """Mean cosine, effective rank, norm and the largest dimension by block."""
    lengths = {
        len(values)
        for run in runs_of(groups)
        for place, measure in (("norms/post", "rest"), ("anisotropy/post", ""))
        if (values := by_block(run, place, measure)) is not None
    }
    shared = len(lengths) <= 1

    def along(place: str, measure: str = "", relative: bool = False) -> Read:
        def read(run: Run) -> Curve | None:
            y = by_block(run, place, measure)
            if y is None:
                return None
            x = np.arange(len(y), dtype=float)
            return x if shared else (x + 1) / len(y), y / (run.width or np.nan if relative else 1)

        return read

    cosine = "anisotropy/post"
    ranks = along("covariance_spectra/post", "entropy_rank", relative=True)
    sizes = along("outliers/post", "largest_ratio")
    panels = [
        Panel("mean cosine", along(cosine), along(cosine, "shuffled")),
        Panel("entropy rank, share of the width", ranks),
        Panel("mean norm", along("norms/post", "rest"), log=True),
        Panel("largest over median dimension", sizes, log=True),
    ]

    def finish(panel: Any, title: str) -> None:
        if shared:
            panel.xaxis.get_major_locator().set_params(integer=True)
        if title == "mean cosine":
            panel.axhline(0, color=INK, lw=0.7)

    return _row(groups, panels, "block" if shared else "depth, share of the blocks", finish)


def spectra(groups: Sequence[Group]) -> Any | None:
    """Singular values of embeddings and head, eigenvalues of last states, sizes of dimensions."""
    shared = len({run.width for run in runs_of(groups)}) <= 1

    def ranked(values_of: Callable[[Run], np.ndarray | None], power: float) -> Read:
        """Over the root mean square (power 2) or the mean (1), so that scale is no difference."""

        def read(run: Run) -> Curve | None:
            values = values_of(run)
            if values is None or not np.nanmax(values) > 0:
                return None
            size = float(np.nanmean(values**power) ** (1 / power)) if power else 1.0
            rank = np.arange(1, len(values) + 1, dtype=float)
            kept = values > 1e-7 * np.nanmax(values)
            return (rank if shared else rank / len(values))[kept], (values / size)[kept]

        return read

    def table(name: str) -> Read:
        return ranked(lambda run: finding_array(run, "table_spectra", name), 2)

    sizes = ranked(lambda run: finding_array(run, "outliers", "rms_last"), 0)
    panels = [
        Panel(
            f"{title}: singular values", table(f"{name}/raw"), table(f"{name}/shuffled"), log=True
        )
        for name, title in (("embedding", "embedding"), ("head", "LM head"))
    ]
    panels.append(Panel("last states: eigenvalues", ranked(last_spectrum, 1), log=True))
    panels.append(Panel("last block: dimensions", sizes, log=True))
    x = "rank" if shared else "rank, share of all"
    return _row(groups, panels, x, lambda panel, _: compact_ticks(panel.xaxis, log=True))


def angles(groups: Sequence[Group]) -> Any | None:
    """Angles to the mean direction, against directions drawn uniformly."""

    def over_degrees(density: np.ndarray | None) -> Curve | None:
        if density is None:
            return None
        return (np.arange(len(density)) + 0.5) * 180 / len(density), density

    def null(name: str) -> Read:
        def read(run: Run) -> Curve | None:
            curve = over_degrees(finding_array(run, "cone", f"{name}/isotropic_density"))
            if curve is not None or angle_density(run, name) is None or not run.width:
                return curve
            x = np.arange(1.0, 180.0, 2.0)  # an analysis before it wrote its null: sin^(D-2)
            log_y = (run.width - 2) * np.log(np.sin(np.radians(x)))
            y = np.exp(log_y - log_y.max())
            return x, y / (2 * y.sum())

        return read

    titles = {"embedding": "embedding", "head": "LM head", "hidden": "last states"}
    panels = [
        Panel(title, lambda run, name=name: over_degrees(angle_density(run, name)), null(name))  # type: ignore[misc]
        for name, title in titles.items()
    ]

    def finish(panel: Any, _: str) -> None:
        panel.set(xlim=(0, 180), xticks=range(0, 181, 30))

    return _row(groups, panels, "degrees to the mean direction", finish)


def _row(
    groups: Sequence[Group], panels: Sequence[Panel], x: str, finish: Callable[[Any, str], None]
) -> Any | None:
    """Panels side by side; those that no group has anything for are left out."""
    drawn = [panel for panel in panels if curves_of(runs_of(groups), panel.read)]
    if not drawn:
        return None
    with drawing_style():
        figure = new_figure(WIDE * (0.1 + 0.225 * max(len(drawn), 2)), 3.1)
        nulls: list[Curve] = []
        for axes, panel in zip(
            figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True
        ):
            if panel.null is not None:
                first = [c for g in groups for c in curves_of(g.runs, panel.null)[:1]]
                for curve in _distinct(first):
                    axes.plot(*curve, color=MUTED, lw=0.9, ls=DASHES)
                nulls += first
            draw(axes, groups, panel.read, marked=32)
            axes.set(title=panel.title, xlabel=x)
            if panel.log:
                compact_ticks(axes.yaxis, log=True)
            else:
                axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            finish(axes, panel.title)
        shown = [g for g in groups if any(curves_of(g.runs, panel.read) for panel in drawn)]
        legend(figure, shown, ["null model"] if nulls else [])
    return figure


def _distinct(curves: Sequence[Curve]) -> list[Curve]:
    """Without those that lie on another one: null models of models of one shape are one line."""
    kept: list[Curve] = []
    for x, y in curves:
        if not any(
            len(y) == len(b) and np.allclose(y, b, rtol=0.02, equal_nan=True) for _, b in kept
        ):
            kept.append((x, y))
    return kept


FIGURES = {"depth": depth, "spectra": spectra, "angles": angles}
