"""Compares runs, finished or not: reads only their directories, writes a page and its numbers."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headless.files import check_pieces, exclusive, holds_json, whole_file
from headless.isolation import isolated
from headless.pages.page import Page
from headless.reports.curves import equal_loss_as_json
from headless.reports.evaluations import evaluations_as_json
from headless.reports.fairness import unfair
from headless.reports.finetunings import read_finetuning
from headless.reports.finetunings import task_tables as classifiers_of
from headless.reports.groups import (
    ANCHORS,
    OVER,
    Group,
    anchors_of,
    differing_settings,
    observing_differences,
    read_groups,
)
from headless.reports.headline import (
    DECILES,
    QUANTITIES,
    baseline_of,
    gap,
    headline,
    share_to_reach,
)
from headless.reports.lm_heads import as_json as tuned_as_json
from headless.reports.lm_heads import split
from headless.reports.places import find_places
from headless.reports.sections import Compared, build_page, sheets_of

if TYPE_CHECKING:
    import pandas

REPORT, NUMBERS = "report.html", "compare.json"
WAIT_SECONDS = 60.0  # for another process that writes the same report
MEASURES = ("anisotropy", "effective_rank")


@dataclass
class Comparison(Compared):
    """What was compared; a notebook shows its tables and its warnings."""

    report: Path | None = None  # the page, once it is saved

    def frame(self) -> "pandas.DataFrame":
        """A row a recipe, a column a headline number: the mean over runs; `± key` is half its 95 %
        interval."""
        import pandas

        numbers = {
            group.label: {
                name: value
                for quantity in headline(self.groups).quantities
                if (number := group.number(quantity.key))
                for name, value in (
                    (quantity.key, number.mean),
                    (f"± {quantity.key}", number.half_width),
                )
            }
            for group in self.groups
        }
        frame = pandas.DataFrame.from_dict(numbers, orient="index").rename_axis("recipe")
        return frame.astype(float).dropna(axis="columns", how="all")

    def _repr_html_(self) -> str:
        page = Page("")
        for title, sheet in sheets_of(self):
            page.table(*sheet, title)
        if self.warnings:
            page.notes(self.warnings, "warning", "Read this before comparing")
        return page.fragment()

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values; what is not known is left out."""
        return {
            "format": 1,
            "interval": "95 %, Student's t over runs",
            "baseline": self.baseline.label if self.baseline else None,
            "warnings": self.warnings,
            "left_out": self.left_out,
            "differing_settings": differing_settings(self.groups),
            "observing_settings": observing_differences(self.groups),
            "anchors": anchors_of(self.groups),
            "groups": [_group_as_json(group, self.baseline or group) for group in self.groups],
            "fine_tuned": tuned_as_json(self.tuned),
            "classifiers": [task.as_json() for task in classifiers_of(self.finetunings)],
        }

    def save(
        self, directory: Path | str, *, overwrite: bool = False, refresh_seconds: int = 0
    ) -> Path:
        """Write `report.html` and `compare.json` into a directory, and touch nothing else there.

        Args:
            overwrite: replace a report, but nothing that another command made.
            refresh_seconds: after which a browser loads the page again, while runs still train.

        Returns:
            The page's path.
        """
        directory = Path(directory)
        _refuse_to_replace(directory, overwrite)
        page = build_page(self, directory)
        page.refresh_seconds = refresh_seconds
        text = page.render()
        numbers = json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        report = directory / REPORT
        with exclusive(directory / NUMBERS, patience=WAIT_SECONDS):
            _refuse_to_replace(directory, overwrite)
            # Both are on the disk before either is in its place.
            with whole_file(report) as html, whole_file(directory / NUMBERS) as file:
                html.write(text.encode())
                file.write(f"{numbers}\n".encode())
        self.report = report
        return report


@isolated()
def compare(
    runs: Sequence[Path | str | os.PathLike[str]],
    *,
    output: Path | str | None = None,
    baseline: str | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Compare runs, finished or not, and write a page and its numbers.

    Args:
        runs: directories of runs or of `headless finetune`, or folders of these. Runs that differ
            in nothing but seed, name, place and what only observes are one recipe.
        output: where report.html and compare.json go.
        baseline: what the others are measured against: a run's name, or a recipe's as the table
            shows it; the first cross-entropy one by default.
        overwrite: replace a report.

    Raises:
        HeadlessError: nothing to compare, a damaged file, an unknown baseline, a report in the way.
    """
    if output is not None:
        _refuse_to_replace(Path(output), overwrite)
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


def _refuse_to_replace(directory: Path, overwrite: bool) -> None:
    check_pieces(
        directory,
        (NUMBERS, REPORT),
        overwrite=overwrite,
        is_ours=lambda path: holds_json(path / NUMBERS, "format", "groups"),
    )


def _group_as_json(group: Group, baseline: Group) -> dict[str, Any]:
    run = group.first
    places = sorted(f"geometry/{m}/{layer}" for m in MEASURES for layer in run.layers)
    keys = [*(q.key for q in QUANTITIES), "flops", "wall_seconds"]
    keys += [*(f"geometry/{measure}/embedding" for measure in MEASURES), *places]
    keys += [*DECILES, *(OVER + name for name in ANCHORS)]
    relative: dict[str, Any] = {
        key: {k if k != "mean" else "difference": v for k, v in vars(change).items()}
        for key in (*(q.key for q in QUANTITIES), *DECILES)
        if (change := gap(key, group, baseline))
    } | {
        f"share_of_{axis}_to_reach_baseline_nll": {"value": share_to_reach(group, baseline, axis)}
        for axis in ("tokens", "seconds")
    }
    return {
        "label": group.label,
        "objective_class": run.objective_class,
        "backbone": run.summary.get("backbone"),
        "width": run.width,
        "memory_kind": run.memory_kind,
        "memory_of": run.memory_scope,
        "inexact_share": group.inexact_share,
        "runs": [{"name": r.name, "seed": r.seed, "finished": r.finished} for r in group.runs],
        "metrics": {key: number for key in keys if (number := group.as_json(key))},
        "relative_to_baseline": relative,
        "equal_loss": equal_loss_as_json(group, baseline),
        "evaluations": evaluations_as_json(group),
    }
