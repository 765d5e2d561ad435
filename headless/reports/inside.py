"""The laboratory's findings side by side: what `headless analyze` found of each run.

Analyses may be of other versions, presets and families than each other: whatever one lacks is
None, and nothing is looked up that is not shown.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from headless.analysis import tables
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page
from headless.reports import inside_plots
from headless.reports.groups import Group, runs_of
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
    for name, draw in inside_plots.FIGURES.items():
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
