"""The laboratory's findings side by side: what `headless analyze` found of each run."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headless.analysis import tables
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page
from headless.reports import inside_plots
from headless.reports.groups import Group
from headless.reports.inside_reading import (
    analysed,
    disputed,
    findings_of,
    scalar_of,
    verdicts,
)
from headless.reports.reading import Run
from headless.reports.statistics import estimate

MAX_ROWS = 200  # of a finding's numbers; each run's analysis.json has all
MAX_CLAIMS = 24
KEY = (
    ("mean cosine of the embeddings", "anisotropy/embedding"),
    ("mean cosine of the last states", "anisotropy/norm_f"),
    ("mean angle of the embeddings to their mean, degrees", "cone/embedding/angle"),
    ("mean angle of the last states to their mean, degrees", "cone/hidden/angle"),
    ("σ₁² share of the embeddings", "table_spectra/embedding/first_share"),
    ("σ₁² share of the LM head", "table_spectra/head/first_share"),
    ("effective rank of the embeddings", "table_spectra/embedding/effective_rank"),
    ("effective rank of the LM head", "table_spectra/head/effective_rank"),
    ("entropy rank of the last states", "covariance_spectra/norm_f/entropy_rank"),
    ("position 0's norm over the others'", "norms/first_over_rest"),
)
SPECTRA = (
    "Singular values over their root mean square, dashed: the same entries shuffled (null). "
    "Eigenvalues of the covariance of what the head sees, over their mean. Root mean square of the "
    "last block's dimensions over the median one's, largest first."
)
DEPTH = (
    "After each block: mean cosine over all pairs of states (dashed: each state's entries "
    "shuffled), entropy rank of the covariance, mean norm, and the largest dimension's size. "
    "Position 0 is left out."
)
ANGLES = (
    "Angles of the vectors to their mean direction, as a density per degree; dashed: directions "
    "drawn uniformly in as many dimensions (null)."
)


def add_inside(page: Page, groups: Sequence[Group], output: Path) -> None:
    """The section, where a group was analysed: a table, three figures, claims; numbers folded."""
    chosen = [group for group in groups if analysed(group)]
    if not chosen:
        return
    page.heading("Inside the models")
    pages = ", ".join(_link(analysed(g)[0], output) for g in chosen)
    page.paragraph(
        f"What `headless analyze` measured of each. The null models and what the literature "
        f"reports stand in full in {pages}. Several seeds: their mean."
    )
    remarks = [*_not_analysed(groups, chosen), *_other_texts(chosen)]
    if remarks:
        page.notes(remarks)
    _key_numbers(page, chosen)
    for figure, caption in (
        (inside_plots.depth(chosen), DEPTH),
        (inside_plots.spectra(chosen), SPECTRA),
        (inside_plots.angles(chosen), ANGLES),
    ):
        if figure is not None:
            page.figure(figure, caption, wide=True)
    _claims(page, chosen)
    _numbers(page, chosen)


def _not_analysed(groups: Sequence[Group], chosen: Sequence[Group]) -> list[str]:
    others = [group.label for group in groups if group not in chosen]
    if not others:
        return []
    return [f"Not analysed, so not here: {', '.join(others)} (`headless analyze --model RUN`)."]


def _other_texts(groups: Sequence[Group]) -> list[str]:
    """What makes the numbers hard to compare: other texts, other versions."""
    found = []
    runs = [run for group in groups for run in analysed(group)]
    texts = {str((run.analysis.get("about") or {}).get("text", "none")) for run in runs}
    if len(texts) > 1:
        found.append(f"The analyses read different texts: {'; '.join(sorted(texts))}.")
    versions = {str(run.analysis.get("headless")) for run in runs}
    if len(versions) > 1:
        found.append(f"The analyses are of several versions: {', '.join(sorted(versions))}.")
    return found


def _mean(group: Group, name: str) -> str:
    found = estimate(scalar_of(run, name) for run in analysed(group))
    if found is None:
        return MISSING
    spread = "" if found.half_width is None else f" ± {compact(found.half_width, 2)}"
    return compact(found.mean, 3) + spread


def _link(run: Run, output: Path) -> str:
    """To a run's own page, as seen from the report's directory."""
    words = f"{run.name}/analysis/analysis.html"
    try:
        way = Path(os.path.relpath(run.directory.analysis / "analysis.html", output)).as_posix()
    except ValueError:  # on another drive
        return f"`{words}`"
    way = way if way.startswith("../") else f"./{way}"
    return f"`{words}`" if re.search(r"[()\s`]", way) else f"[{words}]({way})"


def _key_numbers(page: Page, groups: Sequence[Group]) -> None:
    rows: list[list[Cell | str]] = []
    for label, name in KEY:
        texts = [_mean(group, name) for group in groups]
        if any(text != MISSING for text in texts):
            rows.append([label, *texts])
    if rows:
        columns = [Column("", "", "left"), *(Column(group.label) for group in groups)]
        page.table(columns, rows, "The inside in short. A dash: it has none, or was not measured.")


def _claims(page: Page, groups: Sequence[Group]) -> None:
    """Reported findings that some models agree with and others do not."""
    if len(groups) < 2:
        return
    claims = disputed(groups)
    if not claims:
        return
    answers = [verdicts(group) for group in groups]
    rows = [
        [
            Cell(tables.sentence(claim[2]), claim[1]),
            *(_verdict(found.get(claim, [])) for found in answers),
        ]
        for claim in claims[:MAX_CLAIMS]
    ]
    more = f" The first {MAX_CLAIMS} of {len(claims)}." if len(claims) > MAX_CLAIMS else ""
    page.table(
        [
            Column("reported finding", "source", "left"),
            *(Column(g.label, "", "left") for g in groups),
        ],
        rows,
        "Where the models differ: findings of the literature that one model agrees with and "
        f"another does not, each with its criterion.{more}",
        wide=True,
    )


def _verdict(found: Sequence[tuple[bool, str]]) -> Cell:
    if not found:
        return Cell(tables.VERDICTS[None])
    agree = sum(agrees for agrees, _ in found)
    if 0 < agree < len(found):
        return Cell(f"{agree} of {len(found)} runs", found[0][1])
    return Cell(tables.VERDICTS[bool(agree)], found[0][1], strong=not agree)


def _numbers(page: Page, groups: Sequence[Group]) -> None:
    """Each finding's answers and numbers, folded."""
    first: dict[str, dict[str, Any]] = {}
    for group in groups:
        for name, finding in findings_of(analysed(group)[0]).items():
            first.setdefault(name, finding)
    columns = [Column("number", "", "left"), *(Column(group.label) for group in groups)]
    page.heading("All numbers", level=3)
    page.paragraph(
        "Numbers of the blocks are given as their mean over the blocks (smallest – largest)."
    )
    for name, finding in first.items():
        with page.details(str(finding.get("title", name))):
            for group in groups:
                answer = findings_of(analysed(group)[0]).get(name, {}).get("answer")
                if answer:
                    page.paragraph(f"{group.label}: {answer}")
            rows = _rows(groups, name)
            if rows:
                page.table(columns, rows[:MAX_ROWS])
            if len(rows) > MAX_ROWS:
                page.paragraph(f"{len(rows) - MAX_ROWS} more are in each run's `analysis.json`.")


def _rows(groups: Sequence[Group], finding: str) -> list[list[Cell | str]]:
    """A row for every number that a group has, the blocks together."""
    texts: list[dict[str, str]] = []
    for group in groups:
        runs = [findings_of(run).get(finding, {}).get("scalars") or {} for run in analysed(group)]
        means: dict[str, float] = {}
        for name in dict.fromkeys(name for scalars in runs for name in scalars):
            if found := estimate(scalars.get(name) for scalars in runs):
                means[name] = found.mean
        single, rows, _ = tables.by_block(means)
        own = {name: compact(value, 4) for name, value in single.items()}
        for name, values in rows.items():
            y = np.array(list(values.values()))
            own[name] = f"{compact(y.mean(), 3)} ({compact(y.min(), 3)} – {compact(y.max(), 3)})"
        texts.append(own)
    names = dict.fromkeys(name for own in texts for name in own)
    return [[Cell(n, code=True), *(own.get(n, MISSING) for own in texts)] for n in names]
