"""The laboratory's findings side by side: what `headless analyze` found of each run.

Analyses may be of other versions, presets and families than each other: whatever one lacks is
None, and nothing is looked up that is not shown.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headless.analysis import tables
from headless.pages.figures import compact_ticks
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page
from headless.reports.groups import Group, runs_of
from headless.reports.plots import Curve, Panel, Read, grid, shown, zero_line
from headless.reports.statistics import estimate
from headless.reports.texts import TEXTS
from headless.runs.run import Run
from headless.structured import is_number

MAX_CLAIMS = 24
Claim = tuple[str, str, str]  # of which finding, whose, what


def add_inside(page: Page, groups: Sequence[Group], output: Path) -> None:
    """The section, where a group was analysed: a table, three figures, claims."""
    # Only the runs that were analysed, under the labels and colours of their groups.
    chosen = [
        Group(runs, g.index, g.label) for g in groups if (runs := [r for r in g.runs if r.findings])
    ]
    if not chosen:
        return
    page.heading("Inside the models")
    pages = ", ".join(_link(group.first, output) for group in chosen)
    page.paragraph(TEXTS["inside"].format(pages=pages))
    labels = {group.label for group in chosen}
    others = ", ".join(group.label for group in groups if group.label not in labels)
    missing = f"Not analysed, so not here: {others} (`headless analyze --model RUN`)."
    if remarks := [missing] * bool(others) + _other_texts(chosen):
        page.notes(remarks)
    columns = [Column("", "", "left"), *(Column(group.label) for group in chosen)]
    rows = [
        [label, *(_mean(group, name) for group in chosen)]
        for label, name in TEXTS["key_numbers"].items()
    ]
    if rows := [row for row in rows if set(row[1:]) != {MISSING}]:
        page.table(columns, rows, TEXTS["inside_numbers"])
    for name, draw in FIGURES.items():
        if (figure := draw(chosen)) is not None:
            page.figure(figure, TEXTS[name], wide=True)
    _claims(page, chosen)


def _other_texts(groups: Sequence[Group]) -> list[str]:
    """What makes the numbers hard to compare: other texts, other versions."""
    analyses = [run.analysis for run in runs_of(groups)]
    texts = sorted({str((one.get("about") or {}).get("text", "none")) for one in analyses})
    versions = sorted({str(one.get("headless")) for one in analyses})
    return [
        *([f"The analyses read different texts: {'; '.join(texts)}."] * (len(texts) > 1)),
        *([f"The analyses are of several versions: {', '.join(versions)}."] * (len(versions) > 1)),
    ]


def scalar(run: Run, name: str) -> float | None:
    """A number by its name, whichever finding holds it."""
    values = ((one.get("scalars") or {}).get(name) for one in run.findings.values())
    return next((float(value) for value in values if is_number(value)), None)


def _mean(group: Group, name: str) -> str:
    number = estimate(scalar(run, name) for run in group.runs)
    if number is None:
        return MISSING
    spread = "" if number.half_width is None else f" ± {compact(number.half_width, 2)}"
    return compact(number.mean, 3) + spread


def _link(run: Run, output: Path) -> str:
    """To a run's own page, as seen from the report's directory."""
    words = f"{run.name}/analysis/analysis.html"
    link = os.path.relpath(run.directory.analysis / "analysis.html", output)
    link = link if link.startswith("../") else f"./{link}"
    return f"`{words}`" if re.search(r"[()\s`]", link) else f"[{words}]({link})"


def verdicts(group: Group) -> dict[Claim, list[tuple[bool, str]]]:
    """Of each claim of the literature on models that a run of the group was tested for: whether
    each run agrees, and the criterion."""
    answers: dict[Claim, list[tuple[bool, str]]] = {}
    for run in group.runs:
        for name, finding in run.findings.items():
            for claim in finding.get("claims") or ():
                counts = claim.get("kind") != "own" and not claim.get("of_text")
                if counts and isinstance(claim.get("agrees"), bool):
                    key = (name, str(claim.get("source", "")), str(claim.get("text", "")))
                    answer = (claim["agrees"], str(claim.get("criterion", "")))
                    answers.setdefault(key, []).append(answer)
    return answers


def disputed(groups: Sequence[Group]) -> list[Claim]:
    """Claims that were tested in several groups, with different shares of runs that agree."""
    shares: dict[Claim, set[float]] = {}
    for group in groups:
        for claim, answers in verdicts(group).items():
            share = sum(agrees for agrees, _ in answers) / len(answers)
            shares.setdefault(claim, set()).add(round(share, 6))
    return [claim for claim, different in shares.items() if len(different) > 1]


def _claims(page: Page, groups: Sequence[Group]) -> None:
    claims, answers = disputed(groups), [verdicts(group) for group in groups]
    if not claims:
        return
    rows = [
        [Cell(tables.sentence(claim[2]), claim[1]), *(_verdict(own.get(claim)) for own in answers)]
        for claim in claims[:MAX_CLAIMS]
    ]
    more = f" The first {MAX_CLAIMS} of {len(claims)}." if len(claims) > MAX_CLAIMS else ""
    columns = [Column("reported finding", "source", "left")]
    columns += [Column(group.label, "", "left") for group in groups]
    page.table(columns, rows, TEXTS["disputed"] + more, wide=True)


def _verdict(answers: Sequence[tuple[bool, str]] | None) -> Cell:
    if not answers:
        return Cell(tables.VERDICTS[None])
    agree = sum(agrees for agrees, _ in answers)
    if 0 < agree < len(answers):
        return Cell(f"{agree} of {len(answers)} runs", answers[0][1])
    return Cell(tables.VERDICTS[bool(agree)], answers[0][1], strong=not agree)


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
    return _row_of(
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
    return _row_of(
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
    return _row_of(groups, panels)


def _scale_y(panel: Any, log: bool = False) -> None:
    if log:
        compact_ticks(panel.yaxis, log=True)
    else:
        zero_line(panel)
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))


def _row_of(groups: Sequence[Group], panels: Sequence[Panel]) -> Any | None:
    """Those side by side that a group has anything for."""
    return grid(groups, [shown(groups, panels)], share=False, dashed="null model")


FIGURES = {"depth": depth, "spectra": spectra, "angles": angles}
