"""The same analyses at several checkpoints of a run: how each number came about (A24)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headless.analysis import record
from headless.analysis.animation import films, overlay
from headless.analysis.finding import Finding, Picture
from headless.errors import HeadlessError
from headless.pages.figures import step_axis

COLUMNS, MOST = 4, 24  # panels of a picture: a row of the page, and how many

ABOUT = (
    "Every number of the sections below, measured again at each kept checkpoint, over optimizer "
    "steps. The numbers of the blocks share a panel, light lines for the first ones, dark for the "
    "last. A number that is there at the last checkpoint alone cannot be followed and is left out; "
    "one that never changes is not drawn. "
    "Moving pictures have a frame a checkpoint; their axes are the same in all of them."
)


def followed(findings: Sequence[Finding]) -> list[Finding]:
    """Findings without what `over_training` does not look at: the states behind most pictures.

    Many checkpoints fit into memory so.
    """
    return [
        finding
        if isinstance(finding, record.Finding)
        else replace(
            finding,
            pictures=(),
            animations=(),
        )
        for finding in findings
    ]


def over_training(by_step: Mapping[int, Sequence[Finding]]) -> Finding:
    """Curves of every scalar that is known at two checkpoints or more, and moving pictures.

    Args:
        by_step: the findings at each step; the same analyses everywhere.

    Raises:
        HeadlessError: fewer than two checkpoints.
    """
    steps = sorted(by_step)
    if len(steps) < 2:
        raise HeadlessError(
            "a course over training needs two checkpoints or more: train with --checkpoint.keep "
            "true to keep them"
        )
    values: dict[str, dict[str, list[float]]] = {}
    for finding in by_step[steps[-1]]:
        found: dict[str, list[float]] = {}
        for name in finding.scalars:
            course = [_scalar(by_step[step], finding.name, name) for step in steps]
            if np.isfinite(course).sum() >= 2:
                found[name] = course
        if found:
            values[finding.name] = found
    titles = {finding.name: finding.title for finding in by_step[steps[-1]]}
    arrays = {"steps": np.array(steps)} | {
        name: np.array(course) for found in values.values() for name, course in found.items()
    }
    count = sum(map(len, values.values()))
    together = overlay(by_step)
    return Finding(
        name="over_training",
        title="Over training",
        about=ABOUT,
        answer=f"{count} numbers at {len(steps)} checkpoints, from step {steps[0]:,} to "
        f"{steps[-1]:,}. {_largest_moves(steps, values)}",
        scalars={
            f"over_training/{name}/change": course[-1] - course[0]
            for found in values.values()
            for name, course in found.items()
            if np.isfinite(course[-1] - course[0])
        },
        arrays=arrays,
        pictures=(
            *([together] if together else []),
            *(_curves(name, titles[name], steps, found) for name, found in values.items()),
        ),
        animations=tuple(films(by_step)),
    )


def _scalar(findings: Sequence[Finding], finding: str, name: str) -> float:
    for one in findings:
        if one.name == finding:
            return float(one.scalars.get(name, np.nan))
    return float("nan")


def _largest_moves(steps: Sequence[int], values: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The numbers that moved most, relative to their own size over training."""
    moves = {
        name: abs(course[-1] - course[0]) / (np.nanmean(np.abs(course)) or 1.0)
        for found in values.values()
        for name, course in found.items()
        if np.isfinite([course[0], course[-1]]).all()
    }
    best = sorted(moves, key=lambda name: -moves[name])[:3]
    return "Those that moved most for their size: " + ", ".join(best) + "." if best else ""


def _curves(
    name: str, title: str, steps: Sequence[int], found: Mapping[str, list[float]]
) -> Picture:
    panels = together(found)
    moving = {n: courses for n, courses in panels.items() if any(len(set(c)) > 1 for c in courses)}
    panels = moving or panels
    shown = dict(list(panels.items())[:MOST])
    more = f" (the first {MOST} of {len(panels)} panels)" if len(panels) > MOST else ""
    return Picture(
        f"over-training-{name.replace('_', '-')}",
        f"{title}, over optimizer steps{more}.",
        lambda: _draw(steps, shown),
    )


def together(found: Mapping[str, list[float]]) -> dict[str, list[list[float]]]:
    """Courses that differ in one number of their names, the block, by the name with `*` there."""
    panels: dict[str, list[list[float]]] = {}
    for name, course in found.items():
        panels.setdefault(re.sub(r"(?<=/)\d+(?=/|$)", "*", name, count=1), []).append(course)
    return dict(sorted(panels.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> tuple[bool, bool]:
    """The stream after the blocks first, null models last."""
    return any(null in name for null in ("shuffled", "null")), "/post/" not in name


def _draw(steps: Sequence[int], panels: Mapping[str, list[list[float]]]) -> Any:
    from headless.analysis.by_depth import depth_colors
    from headless.pages.figures import drawing_style, new_figure, series_color

    names = list(panels)
    rows = -(-len(names) // COLUMNS)
    with drawing_style():
        figure = new_figure(11.2, 0.4 + 1.75 * rows)
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for index, (panel, name) in enumerate(zip(grid, names, strict=False)):
            courses = panels[name]
            colors = depth_colors(len(courses)) if len(courses) > 1 else [series_color(0)]
            x = step_axis(panel, steps)
            for course, color in zip(courses, colors, strict=True):
                panel.plot(x, course, color=color, marker="o", markersize=2.5, lw=1.2)
            panel.set_title(_short(name), fontsize="small")
            if index + COLUMNS >= len(names):
                panel.set_xlabel("optimizer steps")
        for panel in grid[len(names) :]:
            panel.set_axis_off()
    return figure


def _short(name: str) -> str:
    """A scalar's name without its analysis, in two lines where it is long."""
    text = name.partition("/")[2] or name
    if len(text) <= 28:
        return text
    middle = text.rfind("/", 0, 29)
    cut = middle if middle > 0 else 28
    return f"{text[:cut]}\n{text[cut:]}"
