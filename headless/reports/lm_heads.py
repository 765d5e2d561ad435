"""From a pre-trained model to a softmax head: how many steps of fine-tuning a free head is worth.

A run with `model.init_from` is a fine-tuning. Its first validation, before any step, is that of the
head that it began with: a copy of the input embeddings has the nll of the bare tied head, the
model's own head that of the calibrated one.
"""

from collections.abc import Sequence
from typing import Any

from headless.pages.page import Column, Page
from headless.reports.groups import Group
from headless.reports.plots import logged, reached_at
from headless.reports.statistics import Estimate, estimate
from headless.reports.tables import Quantity, Scores, Table
from headless.reports.texts import TEXTS

CURVE = logged("val/nll", "step")
RATE = "model.optimizer.lr"
COLUMNS = (
    Quantity("rate", "learning rate", digits="compact"),
    Quantity("steps", "steps", digits=0),
    Quantity("before", "before", "nats/token"),
    Quantity("after", "after", "nats/token"),
    Quantity("change", "change", "nats"),
    Quantity("reached", "steps to reach", "the free head", digits=0),
)


def split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """The groups that were pre-trained from nothing and those that began from a trained model.

    Where all of them began from one, they are compared as any others are.
    """
    scratch = [group for group in groups if not group.first.init_from]
    tuned = [group for group in groups if group.first.init_from]
    return (scratch, tuned) if scratch else (tuned, [])


def before(group: Group) -> list[float | None]:
    """The validation nll of each run before any step."""
    curves = [CURVE(run) for run in group.runs]
    return [float(c[1][0]) if c is not None and c[0][0] == 0 else None for c in curves]


def _free_levels(group: Group, tuned: Sequence[Group]) -> tuple[dict[int, float], Estimate | None]:
    """The nll of the model's own head, untrained, by the seed of the run that began with it, and
    its mean."""
    levels = {
        seed: nll
        for other in tuned
        if other.first.begins_from == group.first.begins_from and other.first.init_head == "source"
        for seed, nll in zip(other.seeds, before(other), strict=True)
        if nll is not None
    }
    return levels, estimate(levels.values())


def steps_to_free_head(group: Group, tuned: Sequence[Group]) -> list[float | None]:
    """For each run the steps until it is as good as its own model's untrained head.

    The level is that of the run with the same seed that began with the model's own head, or the
    mean over all of these; None where there is none, or it was never reached.
    """
    levels, mean = _free_levels(group, tuned)
    if mean is None or group.first.init_head == "source":
        return [None] * len(group.runs)
    curves = [
        (CURVE(r), levels.get(s, mean.mean)) for r, s in zip(group.runs, group.seeds, strict=True)
    ]
    return [None if curve is None else reached_at(curve, level) for curve, level in curves]


def add_lm_heads(page: Page, tuned: Sequence[Group]) -> None:
    """The section, where there is one."""
    if not tuned:
        return
    page.heading("From a pre-trained model to a softmax head")
    page.paragraph(TEXTS["lm_heads"])
    heading = Column("fine-tuning", "runs", "left")
    table = Table(heading, COLUMNS, [_row(group, tuned) for group in tuned])
    page.table(*table.cells(), TEXTS["lm_head_table"], wide=True)


def _row(group: Group, tuned: Sequence[Group]) -> Scores:
    one = _numbers(group, tuned)
    pairs = zip(one["nll_before"], one["nll_after"], strict=True)
    scores = {
        "rate": [run.flat_config.get(RATE) for run in group.runs],
        "steps": group.values("step"),
        "before": one["nll_before"],
        "after": one["nll_after"],
        "change": [None if a is None or b is None else b - a for a, b in pairs],
        "reached": one["steps_to_reach_free_head"],
    }
    about, late = group.count, scores["reached"].count(None)
    is_late = late and one["steps"] is not None and one["free_head_nll"] is not None
    if is_late and one["init_head"] != "source":
        about += f", {late} not there in {one['steps']:,.0f} steps"
    return Scores(group.label, group.seeds, scores, about=about, index=group.index)


def as_json(tuned: Sequence[Group]) -> list[dict[str, Any]]:
    return [_numbers(group, tuned) for group in tuned]


def _numbers(group: Group, tuned: Sequence[Group]) -> dict[str, Any]:
    level = _free_levels(group, tuned)[1]
    return {
        "label": group.label,
        "begins_from": group.first.begins_from,
        "init_head": group.first.init_head,
        "learning_rate": group.first.flat_config.get(RATE),
        "steps": group.first.value("step"),
        "nll_before": before(group),
        "nll_after": group.values("val/nll"),
        "free_head_nll": level.mean if level else None,
        "steps_to_reach_free_head": steps_to_free_head(group, tuned),
        "runs": [{"name": run.name, "seed": run.seed} for run in group.runs],
    }
