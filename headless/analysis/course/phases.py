"""Collapse, entropy-seeking, compression-seeking: does the stream's rank fall, rise and fall again?

Shapes: S steps, K shuffles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from headless.analysis.claims import Claim, Criterion, values
from headless.analysis.courses import Courses
from headless.analysis.over_training import draw_courses
from headless.analysis.record import MODEL, STREAM, Figure, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.errors import HeadlessError

LEAST = 8  # looks: of fewer, chance alone has these phases often
SHUFFLES, SURE = 999, 0.95
FACTOR = 1.1  # by which each phase must change what is looked at
LI = "Li et al. 2025, arXiv 2509.23024"
COURSES = {  # the name here: the finding, the measure, and whether it falls where the rank does
    "rankme": ("covariance_spectra", "entropy_rank", True),
    "alpha_req": ("covariance_spectra", "exponent", False),
    "anisotropy": ("anisotropy", "", False),
}
PHASED = ("rankme", "alpha_req")
WORDS = {"rankme": "RankMe", "alpha_req": "α-ReQ", "anisotropy": "mean cosine"}
MEASURES = tuple(
    Measure(f"{name}_{phase}", f"factor of {WORDS[name]} in the {words} phase", null=null)
    for name in PHASED
    for phase, words, null in (
        ("collapse", "collapse", ""),
        ("expansion", "entropy-seeking", f"{name}_expansion_shuffled"),
        ("compression", "compression-seeking", ""),
    )
)


@dataclass(frozen=True)
class Phases:
    """A course between its ends, its lowest and its highest point, cut where it rises most."""

    collapse: float  #: factor of its fall before the rise; 1: none
    expansion: float  #: of the rise
    compression: float  #: of the fall after it
    lowest: int  #: where the rise begins, an index of the course
    highest: int  #: where it ends


def phases_of(course_S: np.ndarray) -> Phases:
    """Of values above 0: the largest rise there is from one point to a later one, and the rest."""
    y_S = np.log(course_S)
    highest = int((y_S - np.minimum.accumulate(y_S)).argmax())
    lowest = int(y_S[: highest + 1].argmin())
    swings_3 = np.array([y_S[0], y_S[highest], y_S[highest]]) - y_S[[lowest, lowest, -1]]
    collapse, expansion, compression = np.exp(swings_3).tolist()
    return Phases(collapse, expansion, compression, lowest, highest)


def expansion_by_chance(course_S: np.ndarray, seed: int) -> float:
    """The largest rise that 95 % of the walks stay below that make the same steps in any order."""
    steps_S = np.diff(np.log(course_S))
    draw = np.random.default_rng(seed)
    shuffled_KS = draw.permuted(np.tile(steps_S, (SHUFFLES, 1)), axis=1)
    y_KS = np.pad(np.cumsum(shuffled_KS, axis=1), ((0, 0), (1, 0)))
    rises_K = (y_KS - np.minimum.accumulate(y_KS, axis=1)).max(axis=1)
    return float(np.exp(np.quantile(rises_K, SURE)))


def criteria_of(name: str) -> dict[str, Criterion]:
    """When the last states have each phase; the rise is one that no random order of steps has."""
    of_last = {
        phase: values(f"{name}_{phase}", *STREAM).last
        for phase in ("collapse", "expansion", "expansion_shuffled", "compression")
    }
    return {
        "collapse": of_last["collapse"] >= FACTOR,
        "expansion": (of_last["expansion"] >= FACTOR)
        & (of_last["expansion"] > of_last["expansion_shuffled"]),
        "compression": of_last["compression"] >= FACTOR,
    }


def _shown(name: str) -> Criterion:
    """All three."""
    found = criteria_of(name)
    return found["collapse"] & found["expansion"] & found["compression"]


def _draw(finding: Finding) -> Any:
    steps_S: Any = finding.payloads["steps"][MODEL]
    found = {name: finding.payloads[f"{{place}}/{name}"] for name in COURSES}
    panels: dict[str, Any] = {WORDS[n]: list(one.values()) for n, one in found.items() if one}
    return draw_courses(Courses(steps_S, {}), panels, finding)


@analysis(
    "phases",
    title="Collapse, entropy-seeking, compression-seeking",
    about=(
        "Li and others follow two numbers of the states' covariance while a model is trained: "
        "RankMe, exp of the entropy of its eigenvalues, and α-ReQ, the exponent of their decay "
        "(fitted from rank 10 to 0.7·D, of narrow models from the tenth part on). They report "
        "three phases: the rank collapses, rises while n-grams are learnt, and falls again; the "
        "exponent moves the other way. Here each course is cut where it rises most: the factor by "
        f"which it falls before, rises, and falls after. A phase is one of {FACTOR} or more, and "
        "the rise must be larger than in 95 % of the walks that make the same steps in random "
        "order (null): a random walk has phases, too. States of all positions but the first; the "
        "courses are a run's own looks (--laboratory.every_n_steps log), or those of its kept "
        "checkpoints (--steps all)."
    ),
    needs={"courses"},
    figures=(
        Figure(
            "phases",
            "RankMe, α-ReQ and mean cosine of the residual stream over optimizer steps, light "
            "lines for the first blocks, dark for the last.",
            _draw,
            of=("{place}/rankme",),
        ),
    ),
    claims=(
        Claim(
            LI,
            "the rank of the last states collapses, expands and is compressed over training",
            _shown("rankme"),
        ),
        Claim(
            LI,
            "the exponent of their spectrum rises, falls and rises again",
            _shown("alpha_req"),
        ),
    ),
)
def phases(lab: Session, *, nulls: bool) -> Finding:
    """Of every point of the stream, from the courses of the laboratory's numbers."""
    assert lab.courses is not None
    courses = lab.courses
    known_S = courses.known_everywhere("covariance_spectra", "entropy_rank", *STREAM)
    steps_S = courses.steps_S[known_S]
    if len(steps_S) < LEAST or steps_S[0]:
        raise HeadlessError(
            f"{len(steps_S)} looks at the states over training, from step "
            f"{steps_S[0] if len(steps_S) else 0}: phases need {LEAST} from step 0 on "
            "(pretrain --laboratory.every_n_steps log)"
        )
    numbers: dict[Place, dict[str, float]] = {}
    payloads: dict[str, dict[Place, Any]] = {"steps": {MODEL: steps_S}}
    for name, (finding, measure, falls) in COURSES.items():
        found = courses.places(finding, measure, *STREAM)
        payloads[f"{{place}}/{name}"] = {p: course_S[known_S] for p, course_S in found.items()}
        for place, course_S in payloads[f"{{place}}/{name}"].items():
            if name in PHASED and bool((course_S > 0).all()):
                upright_S = course_S if falls else 1 / course_S
                numbers.setdefault(place, {}).update(_named(name, upright_S, steps_S, lab.seed))
    finding_ = Finding(series_of(numbers, MEASURES), payloads)
    return finding_.answered(_answer(finding_, steps_S))


def _named(name: str, course_S: np.ndarray, steps_S: np.ndarray, seed: int) -> dict[str, float]:
    found = phases_of(course_S)
    return {
        f"{name}_collapse": found.collapse,
        f"{name}_expansion": found.expansion,
        f"{name}_compression": found.compression,
        f"{name}_expansion_shuffled": expansion_by_chance(course_S, seed),
        f"{name}_lowest_step": float(steps_S[found.lowest]),
        f"{name}_highest_step": float(steps_S[found.highest]),
    }


def _answer(finding: Finding, steps_S: np.ndarray) -> str:
    last = {name: one.at(*STREAM).value[-1] for name, one in finding.series.items()}
    chance = finding.values("rankme_expansion_shuffled", *STREAM)[-1]
    return (
        f"Over {len(steps_S)} looks from step 0 to {steps_S[-1]:,} the rank of the last states "
        f"falls by a factor of {last['rankme_collapse']:.2f} until step "
        f"{last['rankme_lowest_step']:,.0f}, rises by {last['rankme_expansion']:.2f} until step "
        f"{last['rankme_highest_step']:,.0f} (in 95 % of random orders by less than "
        f"{chance:.2f}), and falls by {last['rankme_compression']:.2f} after it."
    )
