"""The same analyses at several checkpoints of a run: how each number came about (A24)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.finding import Finding, Picture
from headless.errors import HeadlessError

COLUMNS, MOST = 4, 24  # panels of a picture: a row of the page, and how many

ABOUT = (
    "Every number of the sections below, measured again at each kept checkpoint, over optimizer "
    "steps. A number that is there at the last checkpoint alone cannot be followed and is left out."
)


def over_training(by_step: Mapping[int, Sequence[Finding]]) -> Finding:
    """Curves of every scalar that is known at two checkpoints or more.

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
        pictures=tuple(
            Picture(
                f"over-training-{name.replace('_', '-')}",
                f"{titles[name]}, over optimizer steps"
                + (f" (the first {MOST} of {len(found)} numbers)." if len(found) > MOST else "."),
                lambda found=found: _draw(steps, found),  # type: ignore[misc]
            )
            for name, found in values.items()
        ),
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


def _draw(steps: Sequence[int], found: Mapping[str, list[float]]) -> Any:
    from headless.pages.figures import compact_ticks, drawing_style, new_figure, series_color

    names = list(found)[:MOST]
    rows = -(-len(names) // COLUMNS)
    with drawing_style():
        figure = new_figure(11.2, 0.4 + 1.75 * rows)
        panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
        for panel, name in zip(panels, names, strict=False):
            panel.plot(steps, found[name], color=series_color(0), marker="o", markersize=3)
            panel.set_title(_short(name), fontsize="small")
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        for panel in panels[max(0, len(names) - COLUMNS) : len(names)]:
            panel.set_xlabel("optimizer steps")
            panel.tick_params(labelbottom=True)
        compact_ticks(panels[0].xaxis, log=False)
    return figure


def _short(name: str) -> str:
    """A scalar's name without its analysis, in two lines where it is long."""
    text = name.partition("/")[2] or name
    if len(text) <= 28:
        return text
    middle = text.rfind("/", 0, 29)
    cut = middle if middle > 0 else 28
    return f"{text[:cut]}\n{text[cut:]}"
