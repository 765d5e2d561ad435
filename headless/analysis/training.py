"""The same analyses at several checkpoints of a run: how each number came about (A24)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.drawing.film import films, frame_steps
from headless.analysis.drawing.grid import depth_colors, panels_of
from headless.analysis.record import (
    MODEL,
    STREAM,
    Figure,
    Finding,
    Payload,
    Place,
    Sample,
    Spectrum,
    series_of,
)
from headless.analysis.tables import block_of
from headless.errors import HeadlessError
from headless.pages.figures import drawing_style, series_color, step_axis

COLUMNS, MOST = 4, 24  # panels of a picture: a row of the page, and how many

ABOUT = (
    "Every number of the sections below, measured again at each kept checkpoint, over optimizer "
    "steps. The numbers of the blocks share a panel, light lines for the first ones, dark for the "
    "last. A number that is there at the last checkpoint alone cannot be followed and is left out; "
    "one that never changes is not drawn. "
    "Moving pictures have a frame a checkpoint; their axes are the same in all of them."
)
Steps = Mapping[int, Sequence[Finding]]
Courses = Mapping[str, list[float]]
OVERLAY = "Every checkpoint, light (first) to dark (last): "
OVERLAYS = {
    "_spectra": by_rank(
        "over-training-spectra",
        f"{OVERLAY}singular values of embeddings and head.",
        Ranks("_spectra", bar="checkpoint"),
    ),
    "_cosines": by_rank(
        "over-training-cosine",
        f"{OVERLAY}mean cosine along the residual stream.",
        Ranks("_cosines", x="block (−1: input)", y="mean cosine", log="", bar="checkpoint"),
        wide=False,
    ),
    "_angles": by_rank(
        "over-training-angles",
        f"{OVERLAY}angles to each checkpoint's own mean direction.",
        Ranks("_angles", x="degrees to the mean", y="density", log="", bar="checkpoint"),
    ),
}


def over_training(by_step: Steps) -> Finding:
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
    scalars = [{k: v for one in by_step[step] for k, v in one.scalars.items()} for step in steps]
    known: dict[str, dict[str, list[float]]] = {}
    for finding in by_step[steps[-1]]:
        courses = {key: [at.get(key, np.nan) for at in scalars] for key in finding.scalars}
        known[finding.name] = {k: c for k, c in courses.items() if np.isfinite(c).sum() >= 2}
    every = {key: course for courses in known.values() for key, course in courses.items()}
    changes = {Place(key): {"change": course[-1] - course[0]} for key, course in every.items()}
    payloads: dict[str, dict[Place, Payload]] = {
        "steps": {MODEL: np.array(steps)},
        "{place}": {Place(key): np.array(course) for key, course in every.items()},
        **{name: over for name, over in _overlays(by_step).items() if over},
    }
    curves = [_curves(one, steps, known[one.name]) for one in by_step[steps[-1]] if known[one.name]]
    return Finding(
        series_of({p: n for p, n in changes.items() if np.isfinite(n["change"])}),
        payloads,
        f"{len(every)} numbers at {len(steps)} checkpoints, from step {steps[0]:,} to "
        f"{steps[-1]:,}. {_largest_moves(every)}",
        name="over_training",
        title="Over training",
        about=ABOUT,
        figures=(*OVERLAYS.values(), *curves),
        animations=tuple(films(by_step)),
    )


def _overlays(by_step: Steps) -> dict[str, dict[Place, Payload]]:
    """What all checkpoints have, in one panel a place."""
    shown = [{one.name: one for one in by_step[step]} for step in frame_steps(list(by_step))]

    def lines(finding: str, key: str, line: Callable[[Any], Spectrum]) -> dict[Place, Payload]:
        found = [one[finding].payloads.get(key, {}) if finding in one else {} for one in shown]
        return {
            Place(str(place), k): line(own[place])
            for place in found[-1]
            for k, own in enumerate(found)
            if place in own
        }

    found = [one["anisotropy"].values("", *STREAM) for one in shown if "anisotropy" in one]
    return {
        "_spectra": lines("table_spectra", "{place}/raw", _bare),
        "_cosines": {
            Place("mean cosine by layer", k): Spectrum(y, at=np.arange(len(y)) - 1)
            for k, y in enumerate(found)
            if len(y)
        },
        "_angles": lines("cone", "{place}/angle_density", _line),
    }


def _bare(values_R: Any) -> Spectrum:
    return Spectrum(values_R.values if isinstance(values_R, Spectrum) else values_R)


def _line(sample: Sample) -> Spectrum:
    return Spectrum(sample.density, at=(sample.edges[:-1] + sample.edges[1:]) / 2)


def _largest_moves(courses: Courses) -> str:
    """The numbers that moved most, relative to their own size over training."""
    moves = {
        name: abs(course[-1] - course[0]) / (np.nanmean(np.abs(course)) or 1.0)
        for name, course in courses.items()
        if np.isfinite([course[0], course[-1]]).all()
    }
    best = sorted(moves, key=lambda name: -moves[name])[:3]
    return "Those that moved most for their size: " + ", ".join(best) + "." if best else ""


def _curves(finding: Finding, steps: Sequence[int], courses: Courses) -> Figure:
    panels = together(courses)
    moving = {n: lines for n, lines in panels.items() if any(len(set(c)) > 1 for c in lines)}
    panels = moving or panels
    more = f" (the first {MOST} of {len(panels)} panels)" if len(panels) > MOST else ""
    return Figure(
        f"over-training-{finding.name.replace('_', '-')}",
        f"{finding.title}, over optimizer steps{more}.",
        partial(_draw, steps, dict(list(panels.items())[:MOST])),
    )


def together(courses: Courses) -> dict[str, list[list[float]]]:
    """Courses that differ in one number of their names, the block, by the name with `*` there."""
    panels: dict[str, list[list[float]]] = {}
    for name, course in courses.items():
        row, block = block_of(name)
        row = row if block else block_of(name, digits=1)[0]  # also ranks, which have one digit
        panels.setdefault(row, []).append(course)
    return dict(sorted(panels.items(), key=lambda item: _order(item[0])))


def _order(name: str) -> tuple[bool, bool]:
    """The stream after the blocks first, null models last."""
    return any(null in name for null in ("shuffled", "null")), "/post/" not in name


def _draw(steps: Sequence[int], panels: Mapping[str, list[list[float]]], _: Finding) -> Any:
    with drawing_style():
        figure, axes = panels_of(len(panels), COLUMNS, height=1.75)
        for index, (panel, (name, courses)) in enumerate(zip(axes, panels.items(), strict=True)):
            colors = depth_colors(len(courses)) if len(courses) > 1 else [series_color(0)]
            step_axis(panel, steps)
            for course, color in zip(courses, colors, strict=True):
                panel.plot(steps, course, color=color, marker="o", markersize=2.5, lw=1.2)
            panel.set_title(_short(name), fontsize="small")
            if index + COLUMNS >= len(panels):
                panel.set_xlabel("optimizer steps")
    return figure


def _short(name: str) -> str:
    """A scalar's name without its analysis, in two lines where it is long."""
    text = name.partition("/")[2] or name
    if len(text) <= 28:
        return text
    middle = text.rfind("/", 0, 29)
    cut = middle if middle > 0 else 28
    return f"{text[:cut]}\n{text[cut:]}"
