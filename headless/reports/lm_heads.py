"""From a pre-trained model to a softmax head: how many steps of fine-tuning a free head is worth.

A run with `model.init_from` is a fine-tuning. Its first validation, before any step, is that of the
head that it began with: a copy of the input embeddings has the nll of the bare tied head, the
model's own head that of the calibrated one.
"""

from collections.abc import Sequence
from typing import Any

from headless.pages.figures import MUTED, compact_ticks
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column, Page
from headless.reports.groups import Group
from headless.reports.plots import DASHES, Panel, curves_of, grid, logged, reached_at
from headless.reports.statistics import Estimate, estimate
from headless.reports.texts import TEXTS

CURVE = logged("val/nll", "step")
COLUMNS = (
    Column("fine-tuning", "runs", "left"),
    Column("learning rate"),
    Column("steps"),
    Column("before", "nats/token"),
    Column("after", "nats/token"),
    Column("change", "nats"),
    Column("steps to reach", "the free head"),
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


def _free_levels(group: Group, tuned: Sequence[Group]) -> dict[int | None, float]:
    """The nll of the model's own head, untrained, by the seed of the run that began with it."""
    return {
        run.seed: nll
        for other in tuned
        if other.first.begins_from == group.first.begins_from and other.first.init_head == "source"
        for run, nll in zip(other.runs, before(other), strict=True)
        if nll is not None
    }


def free_level(group: Group, tuned: Sequence[Group]) -> Estimate | None:
    """The nll of the model's own head, untrained, from the runs that began with it."""
    return estimate(_free_levels(group, tuned).values())


def steps_to_free_head(group: Group, tuned: Sequence[Group]) -> list[float | None]:
    """For each run the steps until it is as good as its own model's untrained head.

    The level is that of the run with the same seed that began with the model's own head, or the
    mean over all of these; None where there is none, or it was never reached.
    """
    levels, mean = _free_levels(group, tuned), free_level(group, tuned)
    if mean is None or group.first.init_head == "source":
        return [None] * len(group.runs)
    curves = [(CURVE(run), levels.get(run.seed, mean.mean)) for run in group.runs]
    return [None if curve is None else reached_at(curve, level) for curve, level in curves]


def add_lm_heads(page: Page, tuned: Sequence[Group]) -> None:
    if not tuned:
        return
    page.heading("From a pre-trained model to a softmax head")
    page.paragraph(TEXTS["lm_heads"])
    if (figure := _figure(tuned)) is not None:
        page.figure(figure, TEXTS["lm_head_curves"], wide=True)
    page.table(COLUMNS, [_row(group, tuned) for group in tuned], TEXTS["lm_head_table"], wide=True)


def _row(group: Group, tuned: Sequence[Group]) -> list[Cell | str]:
    begin, end = before(group), group.values("val/nll")
    pairs = zip(begin, end, strict=True)
    change = [b - a for a, b in pairs if a is not None and b is not None]
    steps = decimals(group.first.value("step"), 0)
    reached: Cell | str = MISSING
    if free_level(group, tuned) is not None and group.first.init_head != "source":
        needed = steps_to_free_head(group, tuned)
        late, mean = needed.count(None), estimate(needed)
        reached = Cell(
            decimals(mean.mean, 0) if mean and not late else f"not in {steps}",
            f"{len(needed) - late} of {len(needed)} runs did" if mean and late else "",
        )
    rate = group.first.flat_config.get("model.optimizer.lr")
    return [
        Cell(group.label, group.count, swatch=group.index),
        MISSING if rate is None else f"{rate:g}",
        steps,
        *(_cell(estimate(values)) for values in (begin, end, change)),
        reached,
    ]


def _cell(number: Estimate | None) -> Cell | str:
    if number is None:
        return MISSING
    half = f"± {decimals(number.half_width, 3)}" if number.half_width else ""
    return Cell(decimals(number.mean, 3), half)


def _figure(tuned: Sequence[Group]) -> Any | None:
    drawn = [g for g in tuned if any(len(x) > 1 for x, _ in curves_of([g.first], CURVE))]
    sources = list(dict.fromkeys(group.first.begins_from for group in drawn))
    panels = [_panel(source, tuned, not place) for place, source in enumerate(sources)]
    return grid(tuned, [panels], share=False) if panels else None


def _panel(source: str | None, tuned: Sequence[Group], first: bool) -> Panel:
    """The runs that began from one model, over their steps."""

    def finish(axes: Any) -> None:
        own = [group for group in tuned if group.first.begins_from == source]
        if (level := free_level(own[0], tuned)) is not None:
            axes.axhline(level.mean, color=MUTED, linestyle=DASHES, linewidth=1.0)
        compact_ticks(axes.xaxis, log=False)

    return Panel(
        lambda run: CURVE(run) if run.begins_from == source else None,
        f"after {source}",
        "optimizer steps of fine-tuning",
        "validation nll\nnats per token" if first else "",
        marked=1000,
        finish=finish,
    )


def as_json(tuned: Sequence[Group]) -> list[dict[str, Any]]:
    levels = [free_level(group, tuned) for group in tuned]
    return [
        {
            "label": group.label,
            "begins_from": group.first.begins_from,
            "init_head": group.first.init_head,
            "learning_rate": group.first.flat_config.get("model.optimizer.lr"),
            "steps": group.first.value("step"),
            "nll_before": before(group),
            "nll_after": group.values("val/nll"),
            "free_head_nll": level.mean if level else None,
            "steps_to_reach_free_head": steps_to_free_head(group, tuned),
            "runs": [{"name": run.name, "seed": run.seed} for run in group.runs],
        }
        for group, level in zip(tuned, levels, strict=True)
    ]
