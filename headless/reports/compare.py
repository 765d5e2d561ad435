"""Compares runs, finished or not: reads only their directories, writes a page and its numbers."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headless.files import check_pieces, exclusive, holds_json, whole_file
from headless.pages.page import Page
from headless.reports.comparison import Compared
from headless.reports.fairness import unfair
from headless.reports.finetunings import read_finetuning
from headless.reports.groups import read_groups
from headless.reports.headline import baseline_of, headline
from headless.reports.lm_heads import split
from headless.reports.places import find_places
from headless.reports.sections import build_page, tables_of

if TYPE_CHECKING:
    import pandas

REPORT, NUMBERS = "report.html", "compare.json"
WAIT_SECONDS = 60.0  # for another process that writes the same report


@dataclass
class Comparison(Compared):
    """What was compared; a notebook shows its tables and its warnings."""

    report: Path | None = None  # the page, once it is saved

    def frame(self) -> "pandas.DataFrame":
        """A row a recipe and a column a headline number, mean over runs; beside each that several
        runs have its `± key`, half the 95 % interval."""
        import pandas

        table = headline(self.groups)
        columns: dict[str, list[float | None]] = {}
        for quantity in table.quantities:
            numbers = [group.number(quantity.key) for group in self.groups]
            columns[quantity.key] = [n.mean if n else None for n in numbers]
            half_widths = [n.half_width if n else None for n in numbers]
            if any(half is not None for half in half_widths):
                columns[f"± {quantity.key}"] = half_widths
        labels = pandas.Index([group.label for group in self.groups], name="recipe")
        return pandas.DataFrame(columns, index=labels)

    def _repr_html_(self) -> str:
        page = Page("")
        for table in tables_of(self):
            page.table(*table.cells(), table.title)
        if self.warnings:
            page.notes(self.warnings, "warning", "Read this before comparing")
        return page.fragment()

    def save(
        self, directory: Path | str, *, overwrite: bool = False, refresh_seconds: int = 0
    ) -> Path:
        """Write `report.html` and `compare.json`; nothing else in the directory is touched.

        Args:
            directory: made where it is missing.
            overwrite: replace a report that is there already.
            refresh_seconds: after which a browser loads the page again, while runs still train.

        Returns:
            The page's path.

        Raises:
            HeadlessError: a report, or something else, is in the way.
        """
        directory = Path(directory)
        _check(directory, overwrite)
        page = build_page(self, directory)
        page.refresh_seconds = refresh_seconds
        numbers = json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        report = directory / REPORT
        with exclusive(directory / NUMBERS, patience=WAIT_SECONDS):
            _check(directory, overwrite)
            # Both are on the disk before either is in its place.
            with whole_file(report) as html, whole_file(directory / NUMBERS) as file:
                html.write(page.render().encode())
                file.write(f"{numbers}\n".encode())
        self.report = report
        return report


def compare(
    runs: Sequence[Path | str | os.PathLike[str]],
    *,
    output: Path | str | None = None,
    baseline: str | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Compare runs, finished or not, and write a page and its numbers.

    Args:
        runs: run directories, directories of `headless finetune`, or folders of these, several.
            Runs that differ in nothing but seed, name, place and in what only observes are one
            recipe.
        output: where report.html and compare.json go.
        baseline: what the others are measured against: a run's name, or a recipe's as the table
            shows it; the first cross-entropy one by default.
        overwrite: replace a report that is there already.

    Raises:
        HeadlessError: no runs, not a run directory, a damaged file, an unknown baseline, or a
            report in the way.
    """
    if output is not None:
        _check(Path(output), overwrite)
    places = find_places([Path(path) for path in runs])
    groups, tuned = split(read_groups(places.runs))
    comparison = Comparison(
        groups,
        [*unfair(groups), *(f"Fine-tuned LM heads: {words}" for words in unfair(tuned))],
        tuned,
        [read_finetuning(path) for path in places.finetunings],
        baseline_of(groups, baseline) if groups or baseline else None,
        places.left_out,
    )
    if output is not None:
        comparison.save(output, overwrite=overwrite)
    return comparison


def _check(directory: Path, overwrite: bool) -> None:
    check_pieces(
        directory,
        (NUMBERS, REPORT),
        overwrite=overwrite,
        is_ours=lambda path: holds_json(path / NUMBERS, "format", "groups"),
    )
