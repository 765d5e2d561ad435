"""The same figures over checkpoints: a frame each, the axes those that hold all of them.

What moves is the model: the same rows of the tables and the same states of the same text are shown,
where a figure has it (`Figure.seen`) in directions that are those of the last checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.record import Animation, Figure, Finding
from headless.pages.figures import INK, drawing_style

FRAMES = 24  # of a film at most


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
    """The film of a figure; None where fewer than two checkpoints have it.

    Args:
        by_step: one analysis' findings, in the order of the steps.
        figure: of its last one.
    """
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
