"""Phases, convergence and the switch, of courses and states that are known."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from planted import claim, draw_all, gather, gaussian, plain, states_lab, stream

from headless.analysis.analyze import analyze
from headless.analysis.course.convergence import convergence, settling, states_of
from headless.analysis.course.phases import expansion_by_chance, phases, phases_of
from headless.analysis.course.switch import around, switch
from headless.analysis.courses import Checkpoints, Courses, courses_of, logged, switch_step
from headless.analysis.record import Finding, Place
from headless.errors import HeadlessError
from headless.runs.run import Run
from headless.training.assembly import build
from headless.training.pretrain import fit

STEPS = np.array([0, *(s for s in range(1, 3000) if s // (s & -s) in (1, 3))])
S = len(STEPS)
RNG = np.random.default_rng(0)
TURNS = np.interp(
    np.arange(S), [0, 6, 16, S - 1], np.log([200, 60, 300, 150])
)  # falls, rises, falls


def lab(rank_S: np.ndarray, **more: np.ndarray) -> Any:
    values = {"covariance_spectra/post/00/entropy_rank": rank_S} | more
    return SimpleNamespace(courses=Courses(STEPS[: len(rank_S)], values), seed=0, checkpoints=None)


def noisy(course_S: np.ndarray, size: float, seed: int = 1) -> np.ndarray:
    return np.exp(course_S + size * np.random.default_rng(seed).normal(size=len(course_S)))


def test_three_phases_are_found(tmp_path: Path) -> None:
    alpha = {"covariance_spectra/post/00/exponent": 200 / noisy(TURNS, 0.02)}
    found = phases(lab(noisy(TURNS, 0.02), **alpha))
    assert found is not None
    assert claim(found, "rank of the last states") is True
    assert claim(found, "exponent of their spectrum") is True
    assert found.scalars["phases/post/00/rankme_collapse"] == pytest.approx(200 / 60, rel=0.1)
    assert found.scalars["phases/post/00/rankme_expansion"] == pytest.approx(300 / 60, rel=0.1)
    assert found.scalars["phases/post/00/alpha_req_compression"] == pytest.approx(2, rel=0.1)
    assert abs(list(STEPS).index(found.scalars["phases/post/00/rankme_lowest_step"]) - 6) <= 1
    draw_all(found, tmp_path)


def test_no_phases_without_a_course() -> None:
    """A trend alone, noise around a level, and random walks: one in twenty of these at most."""

    def agrees(course_S: np.ndarray) -> bool:
        found = phases(lab(course_S))
        assert found is not None
        return bool(claim(found, "rank of the last states"))

    assert not agrees(noisy(np.linspace(3, 6, S), 0.01))
    assert not agrees(noisy(np.linspace(6, 3, S), 0.01))
    assert not agrees(noisy(TURNS[:17], 0.01))  # as long as nothing is compressed
    assert not agrees(noisy(TURNS[6:], 0.01))  # nothing collapsed
    assert not any(agrees(noisy(np.full(S, 5.0), 0.3, seed)) for seed in range(5))
    walks = np.cumsum(0.3 * RNG.normal(size=(100, S)), axis=1)
    assert sum(agrees(np.exp(walk)) for walk in walks) <= 10


def test_the_largest_rise_by_hand() -> None:
    course = np.array([4.0, 2.0, 3.0, 1.0, 8.0, 2.0, 3.0])
    found = phases_of(course)
    assert (found.lowest, found.highest) == (3, 4)
    np.testing.assert_allclose((found.collapse, found.expansion, found.compression), (4, 8, 8 / 3))
    # Of two steps up and two down, in six orders, those of 1 up, 2 up at once have the largest.
    assert expansion_by_chance(np.array([4.0, 2, 4, 2, 4]), 0) == pytest.approx(4)


def test_too_few_looks() -> None:
    with pytest.raises(HeadlessError, match=r"5 looks .*every_n_steps log"):
        phases(lab(noisy(TURNS, 0.0)[:5]))
    late = lab(noisy(TURNS, 0.0))
    late.courses = Courses(STEPS + 1, late.courses.values)
    with pytest.raises(HeadlessError, match="from step 1: phases need 8 from step 0 on"):
        phases(late)


def states(step: int) -> dict[Any, Any]:
    """Blocks of which the first is what it will be from the second checkpoint on."""
    final, first = gaussian(seed=1), gaussian(seed=2)
    return stream([(final @ torch.diag(torch.linspace(3, 1, 32).double())) if step else first]) | {
        key: gather(x)
        for key, x in zip(
            stream([final] * 2).keys(),
            (final if step else first, final if step > 1 else first),
            strict=True,
        )
    }


def test_convergence_ends_at_one() -> None:
    labs = {step: states_lab(states(step), courses=None) for step in (0, 1, 2)}
    last, before, found = states_of(labs[2]), {}, {}
    for step, one in labs.items():
        one.checkpoints = Checkpoints(last, before)
        before = states_of(one)
        found[step] = convergence(one)
    of = {step: one.scalars for step, one in found.items()}
    for block in ("00", "01"):
        for name in ("cka", "pwcca"):
            assert of[2][f"convergence/post/{block}/{name}"] == pytest.approx(1, abs=1e-9)
        at_random = [of[0][f"convergence/post/{block}/{n}"] for n in ("cka", "cka_shuffled")]
        assert max(map(abs, at_random)) < 0.03
        pair = [of[0][f"convergence/post/{block}/{n}"] for n in ("pwcca", "pwcca_shuffled")]
        assert pair[0] == pytest.approx(pair[1], abs=0.05)
        assert 0.1 < pair[0] < 0.35  # of 1,000 states in 32 dimensions
    assert of[1]["convergence/post/00/cka"] == pytest.approx(1, abs=1e-9)
    assert abs(of[1]["convergence/post/00/cka_shuffled"]) < 0.03
    assert of[1]["convergence/post/00/pwcca_shuffled"] < 0.35
    assert of[1]["convergence/post/01/cka"] < 0.1
    assert "convergence/post/00/drift" not in of[0]
    assert of[2]["convergence/post/00/drift"] == of[1]["convergence/post/01/drift"] == 0
    assert of[2]["convergence/post/01/drift"] == of[1]["convergence/post/01/drift_to_last"] > 0
    assert of[1]["convergence/post/00/drift"] < of[1]["convergence/post/00/drift_halves"]
    settled = settling(SimpleNamespace(courses=courses_of({s: [f] for s, f in found.items()})))
    assert settled is not None
    assert settled.values("step", "post").tolist() == [1, 2]
    assert claim(settled, "bottom up") is None  # two blocks


@pytest.mark.parametrize("bottom_up", [True, False])
def test_what_settles_first(bottom_up: bool) -> None:
    order = range(6) if bottom_up else (3, 0, 5, 1, 4, 2)
    courses = {
        f"convergence/post/{b:02d}/cka": np.where(np.arange(S) >= 3 * turn, 0.95, 0.5)
        for b, turn in enumerate(order)
    }
    found = settling(SimpleNamespace(courses=Courses(STEPS, courses)))
    assert found is not None
    assert claim(found, "bottom up") is bottom_up


def test_around_the_switch() -> None:
    steps = np.array([0, 10, 20, 30, 40, 60])
    assert around(steps, 40) == (2, 4, 5)  # the softmax made step 41
    assert around(steps, 35) == (0, 3, 4)
    assert around(steps, 5).earlier is None
    for never in (60, -1):
        with pytest.raises(HeadlessError, match="no look lies"):
            around(steps, never)


@pytest.mark.parametrize("comes", [True, False])
def test_what_a_switch_does(comes: bool, tmp_path: Path) -> None:
    drift = 0.1 + 0.001 * np.minimum(np.arange(S), 18)  # less behind the switch
    cosine = drift + comes * 0.5 * (STEPS > 100)
    values = {"anisotropy/post/00": cosine - 0.05, "anisotropy/norm_f": cosine}
    known = Courses(STEPS, values | {"anisotropy/norm_f/centred": drift * 0}, switched_at=100)
    found = switch(SimpleNamespace(courses=known))
    assert found is not None
    assert claim(found, "cone comes back") is comes
    assert len(found.claims) == 1  # of what was measured
    change, before = (
        found.scalars[f"switch/anisotropy/norm_f/{n}"] for n in ("change", "change_before")
    )
    after = 1 + list(STEPS).index(96)
    assert change == pytest.approx(0.5 * comes + drift[-1] - drift[after - 1])
    assert before == pytest.approx(0.001 * (after - 1))  # from step 0: there are not as many
    value = found.scalars["switch/anisotropy/norm_f/after"]
    assert value == pytest.approx(cosine[after])
    assert found.scalars["switch/anisotropy/norm_f/end"] == cosine[-1]
    draw_all(found, tmp_path)
    with pytest.raises(HeadlessError, match="never goes over"):
        switch(SimpleNamespace(courses=Courses(STEPS, values)))


def test_a_cone_that_was_leaving_faster_does_not_come_back() -> None:
    falling = 0.9 - 0.02 * np.minimum(np.arange(S), 18) + 0.2 * (STEPS > 100)
    found = switch(SimpleNamespace(courses=Courses(STEPS, {"anisotropy/norm_f": falling}, 100)))
    assert found.scalars["switch/anisotropy/norm_f/change"] > 0
    assert claim(found, "cone comes back") is False


def test_of_a_run(run_arguments: Callable[..., list[str]]) -> None:
    """What it logged, and what its kept checkpoints have, at the same steps."""
    options = ("--laboratory.enabled", "true", "--laboratory.every_n_steps", "log")
    options += ("--checkpoint.keep", "true", "--checkpoint.every_n_steps", "4")
    options += ("--model.switch_at", "0.625", "--trainer.max_steps", "8")
    path = fit(build(run_arguments("run", *options, "--trainer.limit_val_batches", "1")))
    assert switch_step(Run(path)) == 5
    known = logged(Run(path))
    assert known.steps_S.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]  # 5 and 7: of the switch
    assert known.switched_at == 5
    # 8 states for each of 16 dimensions: what was logged
    some: dict[str, Any] = {"tokens": 9 * 16, "random_twin": False}
    names = ["switch", "phases", "convergence", "settling"]
    alone = analyze(path, analyses=names, **some)
    assert {*alone.left_out} == {"convergence", "settling"}
    names += ["anisotropy", "covariance"]
    inside = analyze(path, analyses=names, steps="all", **some)
    assert {*inside.left_out} == {"phases"}  # three checkpoints
    for one, before, after in ((alone, 5, 6), (inside, 4, 8)):
        for part, step in (("before", before), ("after", after), ("end", 8)):
            value = one.scalars[f"switch/anisotropy/norm_f/{part}"]
            assert value == pytest.approx(known.values["anisotropy/norm_f"][step], rel=1e-5)
    assert inside.scalars["convergence/norm_f/cka"] == pytest.approx(1, abs=1e-9)
    over = inside.findings[0]
    assert over.name == "over_training"
    course = over.arrays["convergence/norm_f/cka"]
    assert len(course) == 3
    assert course[0] < course[-1] == pytest.approx(1, abs=1e-9)
    assert np.isnan(over.arrays["convergence/norm_f/drift"][0])
    assert "softmax" in next(p for p in over.pictures if "anisotropy" in p.name).caption


def test_a_switch_in_a_run_that_its_epochs_ended() -> None:
    config = {"model": {"switch_at": 0.5}, "trainer": {"max_steps": 100}}
    for summary, step in (({}, 50), ({"finished": True, "steps": 40}, 20)):
        run: Any = SimpleNamespace(config=config, summary=summary)
        assert switch_step(run) == step


def test_places_of_a_course() -> None:
    finding: Finding = plain(
        "a", {"a/post/00": 1.0, "a/post/00/x": 2.0, "a/norm_f": 3.0, "a/q/00": 4.0}
    )
    known = courses_of({0: [finding], 5: [finding]})
    assert list(known.places("a", "", "post", "norm_f")) == [Place("post", 0), Place("norm_f")]
    assert list(known.places("a", "x", "post")) == [Place("post", 0)]
