"""The pictures of the insides of several models, on common axes, one colour a group."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.analysis import tables
from headless.pages.figures import compact_ticks
from headless.reports.groups import Group, runs_of
from headless.reports.plots import Curve, Panel, Read, grid, shown, zero_line
from headless.runs.run import Run
from headless.structured import is_number


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


def depth(groups: Sequence[Group]) -> Any | None:
    """Mean cosine, effective rank, norm and the largest dimension by block."""
    measured = [by_block(run, "anisotropy/post") for run in runs_of(groups)]
    shared = len({len(values) for values in measured if values is not None}) <= 1

    def along(place: str, measure: str = "", relative: bool = False) -> Read:
        def read(run: Run) -> Curve | None:
            y = by_block(run, place, measure)
            if y is None:
                return None
            x = np.arange(len(y), dtype=float)
            return x if shared else (x + 1) / len(y), y / (run.width or np.nan if relative else 1)

        return read

    def finish(panel: Any, log: bool = False) -> None:
        if shared:
            panel.xaxis.get_major_locator().set_params(integer=True)
        _scale_y(panel, log)

    x = "block" if shared else "depth, share of the blocks"
    cosine, logarithmic = "anisotropy/post", partial(finish, log=True)
    ranks = along("covariance_spectra/post", "entropy_rank", relative=True)
    sizes, norms = along("outliers/post", "largest_ratio"), along("norms/post", "rest")
    shuffled = along(cosine, "shuffled")
    return _row(
        groups,
        [
            Panel(along(cosine), "mean cosine", x, null=shuffled, marked=32, finish=finish),
            Panel(ranks, "entropy rank, share of the width", x, marked=32, finish=finish),
            Panel(norms, "mean norm", x, marked=32, finish=logarithmic),
            Panel(sizes, "largest over median dimension", x, marked=32, finish=logarithmic),
        ],
    )


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

    def finish(panel: Any) -> None:
        compact_ticks(panel.xaxis, log=True)
        _scale_y(panel, log=True)

    sizes = ranked(lambda run: finding_array(run, "outliers", "rms_last"), 0)
    panels = [
        (table("embedding/raw"), "embedding: singular values", table("embedding/shuffled")),
        (table("head/raw"), "LM head: singular values", table("head/shuffled")),
        (ranked(last_spectrum, 1), "last states: eigenvalues", None),
        (sizes, "last block: dimensions", None),
    ]
    x = "rank" if shared else "rank, share of all"
    return _row(
        groups,
        [Panel(read, title, x, null=null, finish=finish) for read, title, null in panels],
    )


def angles(groups: Sequence[Group]) -> Any | None:
    """Angles to the mean direction, against directions drawn uniformly."""

    def density(name: str) -> Read:
        """Per degree, in equal bins over 0 to 180."""

        def read(run: Run) -> Curve | None:
            y = finding_array(run, "cone", name)
            return None if y is None else ((np.arange(len(y)) + 0.5) * 180 / len(y), y)

        return read

    def finish(panel: Any) -> None:
        panel.set(xlim=(0, 180), xticks=range(0, 181, 30))
        _scale_y(panel)

    titles = {"embedding": "embedding", "head": "LM head", "hidden": "last states"}
    x = "degrees to the mean direction"
    panels = [
        Panel(density(f"{name}/angle_density"), title, x, finish=finish,
              null=density(f"{name}/isotropic_density"))
        for name, title in titles.items()
    ]  # fmt: skip
    return _row(groups, panels)


def _scale_y(panel: Any, log: bool = False) -> None:
    if log:
        compact_ticks(panel.yaxis, log=True)
    else:
        zero_line(panel)
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))


def _row(groups: Sequence[Group], panels: Sequence[Panel]) -> Any | None:
    """Those side by side that a group has anything for."""
    return grid(groups, [shown(groups, panels)], share=False, dashed="null model")


FIGURES = {"depth": depth, "spectra": spectra, "angles": angles}
