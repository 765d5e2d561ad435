"""Compares runs, finished or not: reads only their directories, writes a page and its numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headless.files import check_pieces, exclusive, holds_json, whole_file
from headless.reports.comparison import Comparison
from headless.reports.evaluations import evaluations_of
from headless.reports.fairness import unfair
from headless.reports.finetunings import as_json as finetunings_as_json
from headless.reports.finetunings import read_finetuning
from headless.reports.groups import Group, differing_settings, observing_differences, read_groups
from headless.reports.headline import QUANTITIES, baseline_of, gap, share_to_reach
from headless.reports.lm_heads import as_json as tuned_as_json
from headless.reports.lm_heads import split
from headless.reports.places import find_places
from headless.reports.sections import build_page
from headless.reports.statistics import estimate

REPORT, NUMBERS = "report.html", "compare.json"
WAIT_SECONDS = 60.0  # for another process that writes the same report


def compare(
    runs: Sequence[Path], output: Path, *, overwrite: bool = False, baseline: str | None = None
) -> Comparison:
    """Write `report.html` and `compare.json` into `output`.

    Args:
        runs: run directories, directories of `headless finetune`, and folders of these. Runs that
            differ in nothing but seed, name, place and in what only observes are one group.
        output: the directory to write to; made where it is missing.
        overwrite: replace a report that is there already. Nothing else in it is touched.
        baseline: the label of a group or the name of a run, against which the others are measured;
            the first cross-entropy group by default.

    Raises:
        HeadlessError: no runs, not a run directory, a damaged file, an unknown baseline, or a
            report in the way.
    """
    output = Path(output)
    _check_output(output, overwrite)
    places = find_places([Path(path) for path in runs])
    groups, tuned = split(read_groups(places.runs))
    comparison = Comparison(
        groups,
        [
            *unfair(groups),
            *(f"Fine-tuned LM heads: {words}" for words in unfair(tuned)),
        ],
        output / REPORT,
        tuned,
        [read_finetuning(path) for path in places.finetunings],
        baseline_of(groups, baseline) if groups or baseline else None,
        places.left_out,
    )
    page = build_page(comparison).render()
    numbers = json.dumps(as_json(comparison), indent=2, ensure_ascii=False, allow_nan=False)
    with exclusive(output / NUMBERS, patience=WAIT_SECONDS):
        _check_output(output, overwrite)
        # Both are on the disk before either is in its place.
        with whole_file(comparison.report) as html, whole_file(output / NUMBERS) as file:
            html.write(page.encode())
            file.write(f"{numbers}\n".encode())
    return comparison


def _check_output(output: Path, overwrite: bool) -> None:
    check_pieces(
        output,
        (NUMBERS, REPORT),
        overwrite=overwrite,
        is_ours=lambda directory: holds_json(directory / NUMBERS, "format", "groups"),
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers of a comparison as plain values; what is not known is left out."""
    groups, baseline = comparison.groups, comparison.baseline
    return {
        "format": 1,
        "interval": "95 %, Student's t over runs",
        "baseline": baseline.label if baseline else None,
        "warnings": comparison.warnings,
        "left_out": comparison.left_out,
        "differing_settings": differing_settings(groups),
        "observing_settings": observing_differences(groups),
        "groups": [_group(group, baseline or group) for group in groups],
        "fine_tuned": tuned_as_json(comparison.tuned),
        "classifiers": finetunings_as_json(comparison.finetunings),
    }


def _group(group: Group, baseline: Group) -> dict[str, Any]:
    layers = sorted({f"geometry/{m}/{name}" for m in _MEASURES for name in group.first.layers})
    keys = [*(q.key for q in QUANTITIES), "flops", "wall_seconds", *_EMBEDDING, *layers]
    metrics = {}
    for key in keys:
        if (found := estimate(group.values(key))) is not None:
            metrics[key] = {
                "mean": found.mean,
                "half_width": found.half_width,
                "n": found.n,
                "values": group.values(key),
            }
    relative = {}
    for quantity in QUANTITIES:
        if (found := gap(quantity, group, baseline)) is not None:
            relative[quantity.key] = {"difference": found.mean, "half_width": found.half_width}
    for axis in ("tokens", "seconds"):
        share = share_to_reach(group, baseline, axis)
        relative[f"share_of_{axis}_to_reach_baseline_nll"] = {"value": share}
    return {
        "label": group.label,
        "objective_class": group.first.objective_class,
        "backbone": group.first.summary.get("backbone"),
        "width": group.first.width,
        "memory_kind": group.first.memory_kind,
        "memory_of": group.first.memory_scope,
        "inexact_share": group.inexact_share,
        "runs": [
            {"name": run.name, "seed": run.seed, "finished": run.finished} for run in group.runs
        ],
        "metrics": metrics,
        "relative_to_baseline": relative,
        "evaluations": evaluations_of(group),
    }


_MEASURES = ("anisotropy", "effective_rank")
_EMBEDDING = tuple(f"geometry/{measure}/embedding" for measure in _MEASURES)
