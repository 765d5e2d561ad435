"""The same analyses at several checkpoints of a run: how each number came about.

In films what moves is the model: the same rows of the tables and the same states of the same text
are shown, where a figure has it (`Figure.seen`) in directions that are those of the last
checkpoint. Their axes hold all checkpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.courses import Courses, courses_of
from headless.analysis.drawing.grid import DASHED, depth_colors, panels_of
from headless.analysis.record import (
    MODEL,
    Animation,
    Figure,
    Finding,
    Payload,
    Place,
    series_of,
)
from headless.analysis.tables import block_of
from headless.errors import HeadlessError
from headless.pages.figures import INK, MUTED, drawing_style, series_color, step_axis

SWITCH = " The dashed line is where a softmax went on."
COLUMNS, MOST = 4, 24  # panels of a picture: a row of the page, and how many
FRAMES = 24  # of a film at most
ABOUT = (
    "Every number of the sections below, measured again at each kept checkpoint, over optimizer "
    "steps. The numbers of the blocks share a panel, light lines for the first ones, dark for the "
    "last. A number that is there at the last checkpoint alone is left out; one that never changes "
    "is not drawn. Moving pictures have a frame a checkpoint, with the same axes in all of them."
)
Lines = Mapping[str, np.ndarray]  # over steps, by the number's key


def over_training(
    by_step: Mapping[int, Sequence[Finding]], switched_at: int | None = None
) -> Finding:
    """Curves of every scalar that is known at two checkpoints or more, and moving pictures.

    Args:
        by_step: the findings at each step; the same analyses everywhere.
        switched_at: the steps after which another objective went on.

    Raises:
        HeadlessError: fewer than two checkpoints.
    """
    steps = sorted(by_step)
    if len(steps) < 2:
        raise HeadlessError(
            "a course over training needs two checkpoints or more: train with --checkpoint.keep "
            "true to keep them"
        )
    courses = courses_of(by_step, switched_at)
    every = courses.values
    curves = []
    for finding in by_step[steps[-1]]:
        known = {key: every[key] for key in finding.scalars if key in every}
        if known:
            curves.append(_curves(finding, courses, known))
    changes = {Place(key): {"change": course[-1] - course[0]} for key, course in every.items()}
    payloads: dict[str, dict[Place, Payload]] = {
        "steps": {MODEL: np.array(steps)},
        "{place}": {Place(key): course_S for key, course_S in every.items()},
    }
    return Finding(
        series_of({p: n for p, n in changes.items() if np.isfinite(n["change"])}),
        payloads,
        f"{len(every)} numbers at {len(steps)} checkpoints, from step {steps[0]:,} to "
        f"{steps[-1]:,}.",
        name="over_training",
        title="Over training",
        about=ABOUT,
        figures=tuple(curves),
        animations=tuple(films(by_step)),
    )


def _curves(finding: Finding, courses: Courses, known: Lines) -> Figure:
    panels = together(known)
    moving = {n: lines for n, lines in panels.items() if any(len(set(c)) > 1 for c in lines)}
    panels = moving or panels
    more = f" (the first {MOST} of {len(panels)} panels)" if len(panels) > MOST else ""
    return Figure(
        f"over-training-{finding.name.replace('_', '-')}",
        f"{finding.title}, over optimizer steps{more}.{SWITCH if courses.switched_at else ''}",
        partial(draw_courses, courses, dict(list(panels.items())[:MOST])),
    )


def together(courses: Lines) -> dict[str, list[np.ndarray]]:
    """Courses that differ in one number of their names, the block, by the name with `*` there.

    The stream after the blocks comes first, null models last.
    """
    panels: dict[str, list[np.ndarray]] = {}
    for name, course in courses.items():
        row, block = block_of(name)
        row = row if block else block_of(name, digits=1)[0]  # also ranks, which have one digit
        panels.setdefault(row, []).append(course)
    nulls = ("shuffled", "null")
    order = sorted(panels, key=lambda n: (any(null in n for null in nulls), "/post/" not in n))
    return {name: panels[name] for name in order}


def draw_courses(courses: Courses, panels: Mapping[str, list[np.ndarray]], _: Finding) -> Any:
    """A panel a name, a line a block; a dashed one where another objective went on."""
    steps = courses.steps_S.tolist()
    with drawing_style():
        figure, axes = panels_of(len(panels), COLUMNS, height=1.75)
        for index, (panel, (name, lines)) in enumerate(zip(axes, panels.items(), strict=True)):
            colors = depth_colors(len(lines)) if len(lines) > 1 else [series_color(0)]
            step_axis(panel, steps)
            if courses.switched_at:
                panel.axvline(courses.switched_at, color=MUTED, lw=0.9, ls=DASHED)
            for course, color in zip(lines, colors, strict=True):
                panel.plot(steps, course, color=color, marker="o", markersize=2.5, lw=1.2)
            short = name.partition("/")[2] or name
            cut = max(short.rfind("/", 0, 29), 0) or 28  # in two lines where it is long
            short = short if len(short) <= 28 else f"{short[:cut]}\n{short[cut:]}"
            panel.set_title(short, fontsize="small")
            if index + COLUMNS >= len(panels):
                panel.set_xlabel("optimizer steps")
    return figure


def films(by_step: Mapping[int, Sequence[Finding]]) -> Iterator[Animation]:
    """Of every figure that has one and that two checkpoints can draw."""
    shown = frame_steps(list(by_step))
    for last in by_step[max(by_step)]:
        steps = {step: one for step in shown for one in by_step[step] if one.name == last.name}
        for figure in last.figures:
            if figure.film and (film := film_of(steps, figure)):
                yield film


def frame_steps(steps: Sequence[int], most: int = FRAMES) -> list[int]:
    """Which checkpoints are shown: all, or the first, the last and some between, evenly on a
    logarithmic axis."""
    ordered = sorted(steps)
    if len(ordered) <= most:
        return ordered
    positive = np.array([step for step in ordered if step > 0])
    targets = np.geomspace(positive[0], positive[-1], most - (len(ordered) - len(positive)))
    nearest = {int(positive[np.abs(np.log(positive / t)).argmin()]) for t in targets}
    return sorted(nearest | {step for step in ordered if step <= 0})


def film_of(by_step: Mapping[int, Finding], figure: Figure) -> Animation | None:
    """The film of a figure of one analysis; None where fewer than two checkpoints have it."""
    able = {
        step: finding
        for step, finding in by_step.items()
        if any(picture.name == figure.name for picture in finding.pictures)
    }
    if len(able) < 2 or figure.film is None:
        return None
    steps = list(able)
    limits: list[tuple[Any, Any]] = []

    def frame(step: int) -> Any:
        return figure.draw(figure.seen(able[step], able[steps[-1]]))

    def draw(index: int) -> Any:
        if not limits:
            limits.extend(_common_limits([frame(step) for step in steps]))
        drawn = frame(steps[index])
        for panel, (x, y) in zip(drawn.axes, limits, strict=True):
            panel.set(xlim=x, ylim=y)
        with drawing_style():
            drawn.suptitle(f"step {steps[index]:,}", x=0.995, ha="right", fontsize=11, color=INK)
        return drawn

    name, words = figure.film
    labels = tuple(f"step {step:,}" for step in steps)
    return Animation(name, f"{words}, one frame a checkpoint. {figure.caption}", labels, draw)


def _common_limits(figures: Sequence[Any]) -> list[tuple[Any, Any]]:
    found = []
    for panels in zip(*(figure.axes for figure in figures), strict=True):
        x, y = (np.array([getattr(p, f"get_{axis}lim")() for p in panels]) for axis in "xy")
        found.append(((x[:, 0].min(), x[:, 1].max()), (y[:, 0].min(), y[:, 1].max())))
    return found
