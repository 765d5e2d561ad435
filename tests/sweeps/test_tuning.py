"""The search of an arm: grids that widen themselves, turns, and TPE in rounds."""

import math
from collections.abc import Callable

import pytest

from headless.sweeps.config import Tuning
from headless.sweeps.tuning import Choice, Point, choose

LR, T = "model.optimizer.lr", "model.objective.temperature"


def searched(tuning: Tuning, score: Callable[[Point], float], most: int = 99) -> Choice:
    """A search to its end: each point that is wanted gets its score, one at a time."""
    known: dict[str, float] = {}
    while not (choice := choose("arm", tuning, lambda p: known.get(repr(p)))).done:
        wanted = [p for p in choice.points if repr(p) not in known]
        assert wanted
        assert choice.best is None
        known[repr(wanted[-1])] = score(wanted[-1])
        assert len(known) <= most
    return choice


def bowl(lr: float, temperature: float = 1.0) -> Callable[[Point], float]:
    def score(point: Point) -> float:
        away = math.log(point[LR] / lr) ** 2
        return 4.0 + away + math.log(point.get(T, temperature) / temperature) ** 2

    return score


def test_a_grid_widens_by_its_own_ratio_until_the_best_is_inside() -> None:
    tuning = Tuning({LR: {"grid": [0.002, 0.004]}})
    for lr, tried in ((0.016, [0.002, 0.004, 0.008, 0.016, 0.032]), (0.001, [0.0005, 0.001])):
        choice = searched(tuning, bowl(lr))
        assert choice.best == {LR: lr}
        assert sorted(point[LR] for point in choice.points)[: len(tried)] == tried
        assert not choice.notes


def test_a_grid_widens_no_further_than_it_may_and_says_so() -> None:
    choice = searched(Tuning({LR: {"grid": [0.002, 0.004]}}, widenings=2), bowl(1.0))
    assert choice.best == {LR: 0.016}
    assert len(choice.points) == 4
    assert choice.notes == [f"the best {LR}, 0.016, is on the edge of what was tried"]
    fixed = searched(Tuning({LR: {"grid": [0.002, 0.004]}}, widen=False), bowl(1.0))
    assert fixed.best == {LR: 0.004}
    assert len(fixed.notes) == 1


def test_what_failed_is_never_the_best() -> None:
    tuning = Tuning({LR: {"grid": [0.002, 0.004, 0.008]}})
    choice = searched(tuning, lambda p: math.inf if p[LR] > 0.003 else 4.0 + p[LR])
    assert choice.best == {LR: 0.001 / 8}  # the lower the better, to the end of the widenings
    assert searched(tuning, lambda p: math.inf).best is None


def test_turns_take_the_best_of_one_parameter_to_the_next() -> None:
    spaces = {LR: {"grid": [0.001, 0.002, 0.004]}, T: {"grid": [0.25, 0.5, 1.0]}}
    for sampler, runs in (("grid", 9), ("turns", 5)):
        choice = searched(Tuning(spaces, sampler=sampler), bowl(0.002, 0.5))
        assert choice.best == {LR: 0.002, T: 0.5}
        assert len(choice.points) == runs


def test_arms_have_their_own_parameters() -> None:
    tuning = Tuning({LR: {"grid": [1, 2]}}, arms={"*-muon": {LR: {"grid": [3]}}, "plain*": None})
    assert tuning.parameters_of("ce-muon") == {LR: {"grid": [3]}}
    assert tuning.parameters_of("ce-adamw") == {LR: {"grid": [1, 2]}}
    assert tuning.parameters_of("plain") == {}
    assert choose("plain", tuning, lambda p: None) == Choice([], {}, done=True)


def test_tpe_asks_for_the_same_points_whatever_comes_first() -> None:
    space = {LR: {"low": 1e-4, "high": 1e-1, "log": True}}
    tuning = Tuning(space, sampler="tpe", trials=12, at_once=4)
    choice = searched(tuning, bowl(0.003))
    assert len(choice.points) == 12
    assert choice.best is not None
    assert 0.0005 < choice.best[LR] < 0.02
    known = {repr(p): bowl(0.003)(p) for p in choice.points}
    assert choose("arm", tuning, lambda p: known.get(repr(p))) == choice
    first = choose("arm", tuning, lambda p: None)  # before any score is known
    assert first.points == choice.points[:4]
    assert choose("other", tuning, lambda p: None).points != first.points


@pytest.mark.parametrize(("grid", "beyond"), [([1, 2, 3], 4), ([-1.0, 0.0, 1.0], 2.0), ([2, 4], 8)])
def test_numbers_that_are_no_rates_widen_too(grid: list, beyond: float) -> None:
    choice = searched(Tuning({LR: {"grid": grid}}, widenings=1), lambda p: -p[LR])
    assert choice.best == {LR: beyond}
