"""What is known of a run at other steps: every number of the laboratory, at kept checkpoints or as
the run logged it, and the states of other checkpoints.

Shapes: S steps, K states, R rows of the embedding that are looked at, D hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headless.analysis.record import Finding, Place
from headless.runs.run import Run

LOGGED = "analysis/"  # before a number's key in a run's metrics


@dataclass(frozen=True)
class Courses:
    """Numbers by their keys in `analysis.json`, over steps."""

    steps_S: np.ndarray  #: ascending
    values: Mapping[str, np.ndarray]  #: [S] each; NaN where a number is not known
    switched_at: int | None = None  #: after so many steps another objective went on

    def known_everywhere(self, finding: str, measure: str, *kinds: str) -> np.ndarray:
        """Which steps have a measure at every place of these kinds that has it at all [S]."""
        found = self.places(finding, measure, *kinds).values()
        known_S = np.full(len(self.steps_S), bool(found))
        for course_S in found:
            known_S &= np.isfinite(course_S)
        return known_S

    def places(self, finding: str, measure: str, *kinds: str) -> dict[Place, np.ndarray]:
        """The course of a measure at each place of these kinds, e.g. "post/03", in their order."""
        found = {}
        for key, course_S in self.values.items():
            inside = key.removeprefix(f"{finding}/").removesuffix(f"/{measure}" if measure else "")
            place = Place.parse(inside)
            if place.kind in kinds and key == "/".join(filter(None, (finding, inside, measure))):
                found[place] = course_S
        return found


@dataclass(frozen=True)
class States:
    """Of one point at one checkpoint: the same tokens of the same text at all of them."""

    sample_KD: Tensor
    eigenvalues_D: Tensor  #: of the covariance, descending


@dataclass(frozen=True)
class Checkpoints:
    """What a checkpoint is compared with."""

    last: Mapping[Place, States]
    before: Mapping[Place, States]  #: empty for the first one
    rows_before: Tensor | None = None  #: of the embedding at the checkpoint before [R, D]
    steps_since: int = 0  #: optimizer steps between that one and this


def courses_of(by_step: Mapping[int, Sequence[Finding]], switched_at: int | None = None) -> Courses:
    """Of findings at each step: what two steps or more have of what the last one has."""
    steps = sorted(by_step)
    return _courses(
        {step: {k: v for f in by_step[step] for k, v in f.scalars.items()} for step in steps},
        switched_at,
    )


def logged(run: Run) -> Courses:
    """What a run's looks into its model logged (`LaboratoryMonitor`), the switch with them."""
    looks: dict[int, dict[str, float]] = {}
    for point in run.points:
        look = {
            key.removeprefix(LOGGED): float(value)
            for key, value in point.items()
            if key.startswith(LOGGED) and isinstance(value, int | float)
        }
        if look:
            looks.setdefault(int(point["progress/step"]), {}).update(look)
    return _courses(looks, switch_step(run))


def _courses(by_step: Mapping[int, Mapping[str, float]], switched_at: int | None) -> Courses:
    steps = sorted(by_step)
    keys = by_step[steps[-1]] if steps else ()
    every = {key: np.array([by_step[step].get(key, np.nan) for step in steps]) for key in keys}
    known = {key: course_S for key, course_S in every.items() if np.isfinite(course_S).sum() >= 2}
    return Courses(np.array(steps, dtype=int), known, switched_at)


def switch_step(run: Run) -> int | None:
    """The steps after which a run goes over from a headless objective to a softmax; None: never."""
    share = (run.config.get("model") or {}).get("switch_at")
    steps = (run.config.get("trainer") or {}).get("max_steps") or -1
    if run.summary.get("finished"):  # before that many, where epochs end sooner
        steps = run.summary.get("steps") or steps
    return None if share is None or steps < 1 else round(share * steps)
