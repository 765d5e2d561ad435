"""The laboratory's numbers side by side: what `headless analyze` found of each run."""

from collections.abc import Sequence
from typing import Any

from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page
from headless.reports.reading import Group
from headless.reports.statistics import estimate


def findings_of(group: Group) -> dict[str, dict[str, Any]]:
    """The findings of a group's first run that was analysed, by name."""
    for run in group.runs:
        if run.analysis:
            return {finding["name"]: finding for finding in run.analysis["findings"]}
    return {}


def values_of(group: Group, finding: str, scalar: str) -> list[float | None]:
    """A number of every run of a group; None where it is not known."""
    return [
        next(
            (f["scalars"].get(scalar) for f in run.analysis["findings"] if f["name"] == finding),
            None,
        )
        if run.analysis
        else None
        for run in group.runs
    ]


def add_inside(page: Page, groups: Sequence[Group]) -> None:
    """The section, where two groups or more were analysed."""
    found = {group.index: findings_of(group) for group in groups}
    analysed = [group for group in groups if found[group.index]]
    if len(analysed) < 2:
        return
    page.heading("Inside the models")
    pages = ", ".join(f"`{g.first.name}/analysis/analysis.html`" for g in analysed)
    page.paragraph(
        f"What `headless analyze` measured of each. The pictures, the null models and what the "
        f"literature reports stand in {pages}. Several seeds: their mean."
    )
    names = [n for n in found[analysed[0].index] if all(n in found[g.index] for g in analysed)]
    columns = [Column("number", "", "left"), *(Column(group.label) for group in analysed)]
    for name in names:
        first = found[analysed[0].index][name]
        page.heading(first["title"], level=3)
        for group in analysed:
            page.paragraph(f"{group.label}: {found[group.index][name]['answer']}")
        scalars = [s for s in first["scalars"] if _known(analysed, name, s)]
        with page.details(f"{len(scalars)} numbers"):
            page.table(columns, [_row(analysed, name, scalar) for scalar in scalars])


def _known(groups: Sequence[Group], finding: str, scalar: str) -> bool:
    return any(estimate(values_of(group, finding, scalar)) for group in groups)


def _row(groups: Sequence[Group], finding: str, scalar: str) -> list[Cell | str]:
    means = [estimate(values_of(group, finding, scalar)) for group in groups]
    return [
        Cell(scalar, code=True),
        *(MISSING if found is None else compact(found.mean, 4) for found in means),
    ]
