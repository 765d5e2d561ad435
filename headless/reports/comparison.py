"""What was compared, as data: the page, the terminal and `compare.json` are made of it."""

from dataclasses import dataclass, field
from typing import Any

from headless.reports.evaluations import evaluations_of
from headless.reports.finetunings import Finetuning
from headless.reports.finetunings import task_tables as classifiers_of
from headless.reports.groups import Group, differing_settings, observing_differences
from headless.reports.headline import QUANTITIES, gap, share_to_reach
from headless.reports.lm_heads import as_json as tuned_as_json

MEASURES = ("anisotropy", "effective_rank")


@dataclass
class Compared:
    """Groups of runs, and what is beside them."""

    groups: list[Group]
    warnings: list[str] = field(default_factory=list)  # what is unfair about the comparison
    tuned: list[Group] = field(default_factory=list)  # from a trained model, where others are not
    finetunings: list[Finetuning] = field(default_factory=list)
    baseline: Group | None = None  # what the other groups are measured against
    left_out: list[str] = field(default_factory=list)  # in words, of what was found in a folder

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
            "groups": [_group(group, self.baseline or group) for group in self.groups],
            "fine_tuned": tuned_as_json(self.tuned),
            "classifiers": [task.as_json() for task in classifiers_of(self.finetunings)],
        }


def _group(group: Group, baseline: Group) -> dict[str, Any]:
    run = group.first
    places = sorted(f"geometry/{m}/{layer}" for m in MEASURES for layer in run.layers)
    keys = [*(q.key for q in QUANTITIES), "flops", "wall_seconds"]
    keys += [*(f"geometry/{measure}/embedding" for measure in MEASURES), *places]
    numbers = {key: group.as_json(key) for key in keys}
    gaps = {q.key: gap(q.key, group, baseline) for q in QUANTITIES}
    relative: dict[str, Any] = {
        key: {"difference": change.mean, "half_width": change.half_width}
        for key, change in gaps.items()
        if change
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
        "runs": [
            {"name": one.name, "seed": one.seed, "finished": one.finished} for one in group.runs
        ],
        "metrics": {key: number for key, number in numbers.items() if number},
        "relative_to_baseline": relative,
        "evaluations": evaluations_of(group),
    }
