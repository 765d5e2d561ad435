"""The search of an arm for its own best settings, as a function of the scores that are known.

It says which points are wanted so far and, once they all have scores, which is the best. The same
scores lead to the same points whoever asks, and whenever: a sweep that was stopped goes on as if
nothing had been.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from headless.structured import is_number
from headless.sweeps.config import Tuning

Point = dict[str, Any]  # a value of each parameter, by dotted name
Look = Callable[[Point], float | None]  # a point's score, infinite where it failed; None: not yet


@dataclass
class Choice:
    """What is wanted of an arm, and the best of it once all is known."""

    points: list[Point]
    best: Point | None = None
    done: bool = False  # without a best point: none came to its end
    notes: list[str] = field(default_factory=list)


def choose(arm: str, tuning: Tuning, look: Look) -> Choice:
    """The search of an arm so far."""
    spaces = tuning.parameters_of(arm)
    if tuning.sampler == "tpe" and spaces:
        return _tpe(arm, tuning, spaces, look)
    return _grids({name: list(space["grid"]) for name, space in spaces.items()}, tuning, look)


def _grids(grids: dict[str, list[Any]], tuning: Tuning, look: Look) -> Choice:
    """Grids that grow where the best value lies on their edge."""
    best = {name: grid[0] for name, grid in grids.items()}
    choice, grown = Choice([], best, done=True), Counter[str]()
    if all(len(grid) == 1 for grid in grids.values()):
        return choice
    limit = tuning.widenings if tuning.widen else 0
    turns = [[name] for name in grids] if tuning.sampler == "turns" else [list(grids)]
    for names in turns:
        while True:
            products = itertools.product(*(grids[name] for name in names))
            points = [best | dict(zip(names, values, strict=True)) for values in products]
            choice.points += [point for point in points if point not in choice.points]
            scores = [score for point in points if (score := look(point)) is not None]
            if len(scores) < len(points) or min(scores) == math.inf:
                return replace(choice, best=None, done=len(scores) == len(points))
            choice.best = best = points[scores.index(min(scores))]
            beyond = {n: v for n in names if (v := next_beyond(grids[n], best[n])) is not None}
            wider = {name: value for name, value in beyond.items() if grown[name] < limit}
            if not wider:
                edge = "is on the edge of what was tried"
                choice.notes += [f"the best {name}, {best[name]:g}, {edge}" for name in beyond]
                break
            grown.update(wider.keys())
            for name, value in wider.items():
                grids[name].append(value)
    return choice


def next_beyond(grid: list[Any], value: Any) -> Any:
    """The next value beyond the edge of a grid, where a value lies on that; else None.

    By the ratio of the last two, by their difference where one is not positive.
    """
    if len(grid) < 2 or not all(map(is_number, grid)) or value not in (min(grid), max(grid)):
        return None
    edge, inner = sorted(grid)[:2] if value == min(grid) else sorted(grid)[:-3:-1]
    new = edge * edge / inner if min(grid) > 0 else 2 * edge - inner
    new = round(new) if all(isinstance(one, int) for one in grid) else float(f"{new:.6g}")
    return None if new in grid else new


def _tpe(arm: str, tuning: Tuning, spaces: dict[str, dict[str, Any]], look: Look) -> Choice:
    """Rounds of points by Optuna's TPE, each from the scores of the rounds before it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(space) for name, space in spaces.items()}
    points: list[Point] = []
    scores: list[float] = []
    while len(points) < tuning.trials:
        seed = int.from_bytes(hashlib.sha256(f"{arm} {len(points)}".encode()).digest()[:4])
        startup = max(4, tuning.trials // 3)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, constant_liar=True
        )
        study = optuna.create_study(sampler=sampler)
        study.add_trials(
            optuna.trial.create_trial(params=point, distributions=distributions, value=score)
            for point, score in zip(points, scores, strict=True)
        )
        for _ in range(min(tuning.at_once, tuning.trials - len(points))):
            asked = study.ask(distributions).params.items()
            points.append({name: _readable(value, spaces[name]) for name, value in asked})
        known = [look(point) for point in points[len(scores) :]]
        if None in known:
            return Choice(points)
        scores += [score for score in known if score is not None]
    best = None if min(scores) == math.inf else points[scores.index(min(scores))]
    return Choice(points, best, done=True)


def _readable(value: Any, space: dict[str, Any]) -> Any:
    """A number as it can stand in a name."""
    if not isinstance(value, float) or "grid" in space:
        return value
    return min(max(float(f"{value:.4g}"), space["low"]), space["high"])


def _distribution(space: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "grid" in space:
        return CategoricalDistribution(space["grid"])
    low, high = space["low"], space["high"]
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=bool(space.get("log", False)))
