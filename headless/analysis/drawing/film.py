"""The same figure over checkpoints: a frame each, the axes those that hold all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headless.analysis.record import Animation, Finding
from headless.pages.figures import INK, drawing_style


def film_of(by_step: Mapping[int, Finding], name: str) -> Animation | None:
    """The film of a figure; None where fewer than two checkpoints have it.

    Args:
        by_step: one analysis' findings, in the order of the steps.
        name: of the figure.
    """
    pictures = {
        step: picture
        for step, finding in by_step.items()
        for picture in finding.pictures
        if picture.name == name
    }
    if len(pictures) < 2:
        return None
    steps = list(pictures)
    (figure,) = (f for f in by_step[steps[-1]].figures if f.name == name)
    limits: list[tuple[Any, Any]] = []

    def draw(index: int) -> Any:
        if not limits:
            limits.extend(_common_limits([pictures[step].draw() for step in steps]))
        drawn = pictures[steps[index]].draw()
        for panel, (x, y) in zip(drawn.axes, limits, strict=True):
            panel.set(xlim=x, ylim=y)
        with drawing_style():
            stamp(drawn, steps[index])
        return drawn

    assert figure.film is not None
    film_name, words = figure.film
    return Animation(
        film_name,
        f"{words}, one frame a checkpoint. {figure.caption}",
        tuple(f"step {step:,}" for step in steps),
        draw,
    )


def stamp(figure: Any, step: int) -> None:
    """Say which step a frame shows."""
    figure.suptitle(f"step {step:,}", x=0.995, ha="right", fontsize=11, color=INK)


def _common_limits(figures: Sequence[Any]) -> list[tuple[Any, Any]]:
    found = []
    for panels in zip(*(figure.axes for figure in figures), strict=True):
        x, y = (np.array([getattr(p, f"get_{axis}lim")() for p in panels]) for axis in "xy")
        found.append(((x[:, 0].min(), x[:, 1].max()), (y[:, 0].min(), y[:, 1].max())))
    return found
