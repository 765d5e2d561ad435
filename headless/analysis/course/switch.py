"""What going over from a headless objective to a softmax does inside.

The change from the last look before the switch to the end stands beside the change over the same
number of steps (as nearly as there are looks) before it: its null.

Shapes: S steps.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from headless.analysis.claims import Claim, Criterion, Number
from headless.analysis.courses import Courses
from headless.analysis.over_training import SWITCH, draw_courses
from headless.analysis.record import MODEL, Figure, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.errors import HeadlessError

OURS = "A prediction of this project"
MEASURES = (
    Measure("before", "before the switch"),
    Measure("after", "behind it"),
    Measure("end", "at the end"),
    Measure("change", "change from before the switch to the end", null="change_before"),
)
# What is asked first: at the last place of the stream that has it, or at a place of its own.
HEADLINES = {
    "mean cosine of the last states": ("anisotropy", ""),
    "their RankMe": ("covariance_spectra", "entropy_rank"),
    "their α-ReQ": ("covariance_spectra", "exponent"),
    "share of the logits' variance along log p": ("unigram", "share"),
    "share of the softmax's gradient that is lost": ("bottleneck/full", "lost"),
}


class Around(NamedTuple):
    """Looks beside the switch, as indices of the steps."""

    earlier: int | None  #: as long before `before` as the end is behind it; None: no such look
    before: int
    after: int


def around(steps_S: np.ndarray, switched_at: int) -> Around:
    """The last look before (or at the very step of) the switch and the first one behind it.

    Raises:
        HeadlessError: a side has none.
    """
    earlier, later = np.flatnonzero(steps_S <= switched_at), np.flatnonzero(steps_S > switched_at)
    if not len(earlier) or not len(later):
        raise HeadlessError(
            f"the softmax went on after step {switched_at:,}, and no look lies "
            f"{'behind' if len(earlier) else 'before'} it: look, or keep checkpoints, more often"
        )
    before, after = int(earlier[-1]), int(later[0])
    wanted = 2 * steps_S[before] - steps_S[-1]
    others = earlier[:-1]
    nearest = int(others[np.abs(steps_S[others] - wanted).argmin()]) if len(others) else None
    return Around(nearest, before, after)


def key_of(keys: Iterable[str], headline: str) -> str | None:
    """A headline's key among these; None: it was not measured."""
    finding, measure = HEADLINES[headline]
    end = f"/{measure}" if measure else ""
    found = [k for k in keys if re.fullmatch(rf"{finding}(/norm_f|/post/\d+)?{end}", k)]
    return found[-1] if found else None


def _of(headline: str, part: str) -> Number:
    """A headline's number: before, after, end, change or change_before."""

    def get(finding: Finding) -> float | None:
        numbers = _numbers(finding, part)
        key = key_of(numbers, headline)
        return None if key is None else numbers[key]

    return Number(lambda f: f"{headline}: {f.label(part)}", get)


def _numbers(finding: Finding, part: str) -> dict[str, float]:
    places = finding.series["change"].places
    return dict(zip(map(str, places), finding.values(part).tolist(), strict=False))


def _is_known(headline: str, finding: Finding) -> bool:
    return key_of(_numbers(finding, "change"), headline) is not None


def _comes(headline: str) -> Criterion:
    """It grows over the switch by more than it changed before, up or down."""
    drift = _of(headline, "change_before")

    def size(finding: Finding) -> float | None:
        value = drift.get(finding)
        return None if value is None else abs(value)

    change = _of(headline, "change").formed("+.2g")
    return change > Number("the size of its change over as long before:", size, ".2g")


def _draw(finding: Finding) -> Any:
    steps: Any = finding.payloads["steps"][MODEL]
    switched: Any = finding.payloads["switched_at"][MODEL]
    courses: Any = finding.payloads["{place}"]
    shown = {h: [courses[Place(k)]] for h in HEADLINES if (k := key_of(map(str, courses), h))}
    return draw_courses(Courses(steps, {}, int(switched)), shown, finding)


@analysis(
    "switch",
    title="What the switch to a softmax does inside",
    about=(
        "The run trained a headless objective, then the softmax that its calibrated head is. Every "
        "number of the laboratory at the last look before the switch, at the first one behind it "
        "and at the end. The change until the end stands beside the change over as many steps "
        "before the switch, as nearly as there are looks (null): a model changes in any case, and "
        "more slowly where its rate decays."
    ),
    needs={"courses"},
    figures=(
        Figure(
            "switch",
            f"The headline numbers over optimizer steps.{SWITCH}",
            _draw,
            of=("{place}",),
        ),
    ),
    claims=tuple(
        Claim(OURS, text, _comes(headline), kind="own", asked=partial(_is_known, headline))
        for headline, text in (
            ("mean cosine of the last states", "the cone comes back once a softmax trains"),
            (
                "share of the logits' variance along log p",
                "the states begin to carry the unigram distribution",
            ),
            (
                "share of the softmax's gradient that is lost",
                "the head passes less of the softmax's gradient",
            ),
        )
    ),
)
def switch(lab: Session, *, nulls: bool) -> Finding:
    """From the courses of a run's numbers."""
    assert lab.courses is not None
    steps_S, switched_at = lab.courses.steps_S, lab.courses.switched_at
    if switched_at is None:
        raise HeadlessError("the run never goes over to another objective (model.switch_at)")
    at = around(steps_S, switched_at)
    numbers: dict[Place, dict[str, float]] = {}
    for key, course_S in lab.courses.values.items():
        found = {"before": course_S[at.before], "after": course_S[at.after], "end": course_S[-1]}
        found["change"] = found["end"] - found["before"]
        if at.earlier is not None:
            found["change_before"] = found["before"] - course_S[at.earlier]
        if np.isfinite(found["change"]):
            numbers[Place(key)] = {name: float(value) for name, value in found.items()}
    payloads: dict[str, dict[Place, Any]] = {
        "steps": {MODEL: steps_S},
        "switched_at": {MODEL: np.array(switched_at)},
        "{place}": {place: lab.courses.values[str(place)] for place in numbers},
    }
    finding = Finding(series_of(numbers, MEASURES), payloads)
    told = [_told(numbers[Place(k)], h) for h in HEADLINES if (k := key_of(map(str, numbers), h))]
    return finding.answered(
        f"A softmax went on after step {switched_at:,}; looks at steps {steps_S[at.before]:,} and "
        f"{steps_S[at.after]:,}. " + " ".join(told)
    )


def _told(numbers: dict[str, float], headline: str) -> str:
    drift = numbers.get("change_before", float("nan"))
    return (
        f"{headline[0].upper()}{headline[1:]}: {numbers['before']:.3g} before, "
        f"{numbers['after']:.3g} behind it, {numbers['end']:.3g} at the end (change over as long "
        f"before: {drift:+.2g})."
    )
