"""From a pre-trained model to a softmax head: how many steps of fine-tuning a free head is worth.

A run with `model.init_from` is a fine-tuning. Its first validation, before any step, is that of the
head that it began with: a copy of the input embeddings has the nll of the bare tied head, the
model's own head that of the calibrated one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.pages.figures import MUTED, compact_ticks, drawing_style, new_figure, series_color
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column, Page
from headless.reports.groups import Group
from headless.reports.plots import mean_curve, thin
from headless.reports.reading import Run
from headless.reports.statistics import Estimate, estimate

WIDE = 11.2


def split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """The groups that were pre-trained from nothing and those that began from a trained model.

    Where all of them began from one, they are compared as any others are.
    """
    scratch = [group for group in groups if not group.first.init_from]
    tuned = [group for group in groups if group.first.init_from]
    return (scratch, tuned) if scratch else (tuned, [])


def steps_to_reach(run: Run, level: float) -> float | None:
    """The first step at which the validation nll is at or below a level, between two validations
    by a straight line; None where it never is."""
    steps, values = curve(run)
    for i, value in enumerate(values):
        if value <= level:
            if i == 0:
                return float(steps[0])
            share = (values[i - 1] - level) / (values[i - 1] - value)
            return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
    return None


def curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Validation nll over optimizer steps."""
    x, y = run.curve("val/nll", "step")
    return np.asarray(x), np.asarray(y)


def first(group: Group) -> list[float | None]:
    """The validation nll of each run before any step."""
    values = []
    for run in group.runs:
        steps, nll = curve(run)
        values.append(float(nll[0]) if len(nll) and steps[0] == 0 else None)
    return values


def free_level(group: Group, tuned: Sequence[Group]) -> Estimate | None:
    """The nll of the model's own head, untrained, from the groups that began with it."""
    same = [g for g in tuned if g.first.begins_from == group.first.begins_from]
    return estimate(value for g in same if g.first.init_head == "source" for value in first(g))


def steps_to_free_head(group: Group, tuned: Sequence[Group]) -> list[float | None]:
    """For each run the steps until it is as good as its own model's untrained head.

    The level is that of the run with the same seed that began with the model's own head, or the
    mean over all of these; None where there is none, or it was never reached.
    """
    level = free_level(group, tuned)
    if level is None or group.first.init_head == "source":
        return [None] * len(group.runs)
    same = [g for g in tuned if g.first.begins_from == group.first.begins_from]
    levels = {
        run.seed: value
        for g in same
        if g.first.init_head == "source"
        for run, value in zip(g.runs, first(g), strict=True)
        if value is not None
    }
    return [steps_to_reach(run, levels.get(run.seed, level.mean)) for run in group.runs]


def add_lm_heads(page: Page, tuned: Sequence[Group]) -> None:
    """The section, where there is anything to say."""
    if not tuned:
        return
    page.heading("From a pre-trained model to a softmax head")
    page.paragraph(
        "A separate output matrix is trained on top of each pre-trained model, beginning from its "
        "own head (of a headless model the calibrated one, with its bias), or from a copy of the "
        "input embeddings, as the paper does. Step 0 is before any training."
    )
    figure = _figure(tuned)
    if figure is not None:
        page.figure(
            figure,
            "Validation nll over the optimizer steps of fine-tuning. Dashed: the model's own head "
            "as it is, without a step.",
            wide=True,
        )
    columns = [
        Column("fine-tuning", "runs", "left"),
        Column("learning rate"),
        Column("steps"),
        Column("before", "nats/token"),
        Column("after", "nats/token"),
        Column("change", "nats"),
        Column("steps to reach", "the free head"),
    ]
    page.table(columns, [_row(group, tuned) for group in tuned], _CAPTION, wide=True)


_CAPTION = (
    "Validation nll before and after fine-tuning, mean and 95 % interval over runs. Last column: "
    "after how many steps it was as good as the model's own head without training, where that is "
    "known: what the free calibration is worth."
)


def _row(group: Group, tuned: Sequence[Group]) -> list[Cell | str]:
    begin = estimate(first(group))
    end = estimate(group.values("val/nll"))
    pairs = zip(first(group), group.values("val/nll"), strict=True)
    change = estimate(b - a for a, b in pairs if a is not None and b is not None)
    level = free_level(group, tuned)
    reached: Cell | str = MISSING
    if level is not None and group.first.init_head != "source":
        found = steps_to_free_head(group, tuned)
        late = sum(value is None for value in found)
        mean = estimate(found)
        reached = Cell(
            decimals(mean.mean, 0) if mean and not late else f"not in {_steps(group)}",
            f"{len(found) - late} of {len(found)} runs did" if mean and late else "",
        )
    rate = group.first.flat_config.get("model.optimizer.lr")
    runs = f"{len(group.runs)} run{'s' * (len(group.runs) > 1)}"
    return [
        Cell(group.label, runs, swatch=group.index),
        MISSING if rate is None else f"{rate:g}",
        _steps(group),
        _cell(begin),
        _cell(end),
        _cell(change),
        reached,
    ]


def _steps(group: Group) -> str:
    return decimals(group.first.value("step"), 0)


def _cell(found: Estimate | None) -> Cell:
    if found is None:
        return Cell(MISSING)
    half = f"± {decimals(found.half_width, 3)}" if found.half_width else ""
    return Cell(decimals(found.mean, 3), half)


def _figure(tuned: Sequence[Group]) -> Any | None:
    """One panel a source."""
    from matplotlib.lines import Line2D

    sources = list(dict.fromkeys(g.first.begins_from for g in tuned if curve(g.first)[0].size > 1))
    if not sources:
        return None
    with drawing_style():
        figure = new_figure(WIDE * min(1.0, 0.62 + 0.38 * (len(sources) - 1)), 3.6)
        panels = figure.subplots(1, len(sources), squeeze=False)[0]
        for panel, source in zip(panels, sources, strict=True):
            groups = [g for g in tuned if g.first.begins_from == source]
            for group in groups:
                curves = [thin(c) for c in map(curve, group.runs) if len(c[0])]
                color = series_color(group.index)
                for x, y in curves if len(curves) > 1 else []:
                    panel.plot(x, y, color=color, linewidth=0.7, alpha=0.45)
                x, y = mean_curve(curves)
                panel.plot(x, y, color=color, marker="o", markersize=3)
            level = free_level(groups[0], tuned)
            if level is not None:
                panel.axhline(level.mean, color=MUTED, linestyle=(0, (3.2, 2.2)), linewidth=1.0)
            panel.set_title(f"after {source}")
            panel.set_xlabel("optimizer steps of fine-tuning")
            compact_ticks(panel.xaxis, log=False)
        panels[0].set_ylabel("validation nll\nnats per token")
        handles = [Line2D([], [], color=series_color(g.index), label=g.label) for g in tuned]
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=1 if len(sources) == 1 else 2,
            borderaxespad=0.2,
        )
    return figure


def as_json(tuned: Sequence[Group]) -> list[dict[str, Any]]:
    """The section's numbers."""
    found = []
    for group in tuned:
        level = free_level(group, tuned)
        found.append(
            {
                "label": group.label,
                "begins_from": group.first.begins_from,
                "init_head": group.first.init_head,
                "learning_rate": group.first.flat_config.get("model.optimizer.lr"),
                "steps": group.first.value("step"),
                "nll_before": first(group),
                "nll_after": group.values("val/nll"),
                "free_head_nll": level.mean if level else None,
                "steps_to_reach_free_head": steps_to_free_head(group, tuned),
                "runs": [{"name": run.name, "seed": run.seed} for run in group.runs],
            }
        )
    return found
