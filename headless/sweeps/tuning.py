"""The search of an arm for its own best settings, as a function of the scores that are known.

It says which points are wanted so far and, once they all have scores, which is the best. The same
scores lead to the same points whoever asks, and whenever: a sweep that was stopped goes on as if
nothing had been.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
    search = _Grids({name: list(space["grid"]) for name, space in spaces.items()}, tuning, look)
    if search.size == 1:
        return Choice([], search.first, done=True)
    turns = [[name] for name in spaces] if tuning.sampler == "turns" else [list(spaces)]
    best: Point | None = search.first
    for names in turns:
        best = best and search.best(best, names)
    return Choice(search.points, best, search.done, search.notes)


class _Grids:
    """Grids that grow where the best value lies on their edge."""

    def __init__(self, grids: dict[str, list[Any]], tuning: Tuning, look: Look) -> None:
        self.grids, self.look = grids, look
        self.limit = tuning.widenings if tuning.widen else 0
        self.points: list[Point] = []
        self.notes: list[str] = []
        self.done = True

    @property
    def size(self) -> int:
        return math.prod(map(len, self.grids.values()))

    @property
    def first(self) -> Point:
        return {name: grid[0] for name, grid in self.grids.items()}

    def best(self, at: Point, names: list[str]) -> Point | None:
        """The best combination of some parameters, the others as they are; None: not yet."""
        grown: Counter[str] = Counter()
        while True:
            products = itertools.product(*(self.grids[name] for name in names))
            points = [at | dict(zip(names, values, strict=True)) for values in products]
            self.points += [point for point in points if point not in self.points]
            scores = [score for point in points if (score := self.look(point)) is not None]
            if len(scores) < len(points):
                self.done = False
                return None
            if min(scores) == math.inf:
                return None
            best = points[scores.index(min(scores))]
            beyond = {n: v for n in names if (v := next_beyond(self.grids[n], best[n])) is not None}
            wider = {n: v for n, v in beyond.items() if grown[n] < self.limit}
            if not wider:
                self.notes += [
                    f"the best {n}, {best[n]:g}, is on the edge of what was tried" for n in beyond
                ]
                return best
            for name, value in wider.items():
                grown[name] += 1
                self.grids[name] = sorted([*self.grids[name], value])


def next_beyond(grid: list[Any], value: Any) -> Any:
    """The next value of a rising grid beyond its edge, where a value lies on that; else None.

    By the ratio of the last two, by their difference where one is not positive.
    """
    if len(grid) < 2 or not all(map(is_number, grid)) or value not in (grid[0], grid[-1]):
        return None
    edge, inner = (grid[0], grid[1]) if value == grid[0] else (grid[-1], grid[-2])
    new = edge * edge / inner if grid[0] > 0 else 2 * edge - inner
    new = round(new) if all(isinstance(one, int) for one in grid) else float(f"{new:.6g}")
    return None if new in grid else new


def _tpe(arm: str, tuning: Tuning, spaces: dict[str, dict[str, Any]], look: Look) -> Choice:
    """Rounds of points by Optuna's TPE, each from the scores of the rounds before it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces_of = {name: _distribution(space) for name, space in spaces.items()}
    points: list[Point] = []
    scores: list[float] = []
    while len(points) < tuning.trials:
        seed = int.from_bytes(hashlib.sha256(f"{arm} {len(points)}".encode()).digest()[:4])
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=max(4, tuning.trials // 3), constant_liar=True
        )
        study = optuna.create_study(sampler=sampler)
        study.add_trials(
            optuna.trial.create_trial(params=point, distributions=spaces_of, value=score)
            for point, score in zip(points, scores, strict=True)
        )
        count = min(tuning.at_once, tuning.trials - len(points))
        new = [_rounded(study.ask(spaces_of).params) for _ in range(count)]
        points += new
        known = [look(point) for point in new]
        if None in known:
            return Choice(_different(points))
        scores += [score for score in known if score is not None]
    best = min(scores)
    found = None if best == math.inf else points[scores.index(best)]
    return Choice(_different(points), found, done=True)


def _distribution(space: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "grid" in space:
        return CategoricalDistribution(space["grid"])
    low, high = space["low"], space["high"]
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=bool(space.get("log", False)))


def _rounded(point: Point) -> Point:
    """Numbers that can be read, and stand in names."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in point.items()}


def _different(points: Iterable[Point]) -> list[Point]:
    found: list[Point] = []
    return [p for p in points if p not in found and not found.append(p)]  # type: ignore[func-returns-value]
