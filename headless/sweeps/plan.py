"""Which runs a sweep wants, as a function of its config and of the results that are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from headless.structured import read_json
from headless.sweeps.config import ARMS, BEGIN_FROM, Settings, Stage, SweepConfig, label_of
from headless.sweeps.tuning import Choice, Point, choose

SAME_STEPS = 0.98  # two per cent fewer steps are within the error of the timing


@dataclass(frozen=True)
class Arm:
    """What an arm's config comes to; found out when the sweep begins."""

    settings: Settings
    steps: int
    warmup_steps: int
    tokens_per_step: int
    parameters: int
    seconds_per_step: float | None = None  # measured in turn with the other arms


def known_arms(config: SweepConfig) -> dict[str, Arm]:
    """The arms as earlier starts found them, and those that the config has no more."""
    file = config.directory / ARMS
    found = read_json(file, dict) if file.is_file() else {}
    return {name: Arm(**arm) for name, arm in found.items()}


def read_arms(config: SweepConfig) -> dict[str, Arm]:
    """The config's arms as earlier starts found them."""
    known = known_arms(config)
    return {name: known[name] for name in config.settings if name in known}


@dataclass(frozen=True)
class Result:
    """How a run ended: "complete" with its last val/nll, or "failed" or "pruned"."""

    state: str
    nll: float | None = None
    why: str = ""

    @property
    def score(self) -> float:
        return self.nll if self.state == "complete" and self.nll is not None else math.inf


@dataclass(frozen=True)
class Job:
    """A run that is wanted."""

    stage: Stage
    arm: str
    values: Point  # of the parameters that are tuned
    seed: int
    steps: int
    begin_from: str | None = None  # the place of a run

    @property
    def place(self) -> str:
        """The run's directory below the sweep's."""
        words = [self.arm, *(_short(key, self.values) for key in self.values)]
        words += [f"steps{self.steps}", f"seed{self.seed}"]
        return f"{self.stage.replace('_', '-')}/{'-'.join(words)}"


@dataclass
class Plan:
    """The runs that the results so far call for, in the order in which they are made."""

    jobs: list[Job] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    runs: dict[str, dict[str, list[Job]]] = field(default_factory=dict)  # by budget and arm
    complete: bool = True  # nothing more will be wanted once these are there


def _short(key: str, values: Point) -> str:
    """A parameter and its value in a name: `lr0.004`."""
    last, value = key.rsplit(".", 1)[-1], values[key]
    name = key if [other.rsplit(".", 1)[-1] for other in values].count(last) > 1 else last
    return label_of(f"{name}{label_of(value)}")


def make_plan(config: SweepConfig, arms: Mapping[str, Arm], results: Mapping[str, Result]) -> Plan:
    """What is wanted, given the results by the places of runs."""
    return _Planner(config, arms, results).plan


class _Planner:
    def __init__(
        self, config: SweepConfig, arms: Mapping[str, Arm], results: Mapping[str, Result]
    ) -> None:
        self.config, self.arms, self.results = config, arms, results
        self.plan = Plan()
        for name in arms:
            self.choice(name)
        for budget in config.budgets:
            steps = equal_seconds(config, arms) if budget == "equal_seconds" else {}
            self.plan.runs[budget] = self.finals(steps)

    def choice(self, name: str) -> Choice:
        """The search of an arm; its runs become wanted."""
        if name not in self.plan.choices:
            tune = self.config.tune
            steps = tune.max_steps or self.arms[name].steps

            def look(point: Point) -> float | None:
                job = self.want("tune", name, point, tune.seed, steps)
                if job is None:
                    return math.inf if self.source(name, tune.seed)[1] else None
                result = self.results.get(job.place)
                return None if result is None else result.score

            self.plan.choices[name] = choice = choose(name, tune, look)
            self.plan.complete &= choice.done
        return self.plan.choices[name]

    def finals(self, fewer: Mapping[str, int]) -> dict[str, list[Job]]:
        """The runs that count, by arm: for its own steps, or for fewer.

        Each arm's first seed stands before any arm's second: a sweep that is stopped compares all.
        """
        runs: dict[str, list[Job]] = {name: [] for name in self.arms}
        seeds = {name: self.config.seeds_of(name) for name in self.arms}
        for turn in range(max(map(len, seeds.values()), default=0)):
            for name, arm in self.arms.items():
                best = self.choice(name).best
                if turn < len(seeds[name]) and best is not None:
                    stage: Stage = "equal_seconds" if name in fewer else "final"
                    steps = fewer.get(name, arm.steps)
                    if job := self.want(stage, name, best, seeds[name][turn], steps):
                        runs[name].append(job)
        return runs

    def source(self, name: str, seed: int) -> tuple[str | None, str]:
        """The place of the run that a run begins from, and its state: "" while it goes on."""
        source = self.arms[name].settings.get(BEGIN_FROM)
        if source is None:
            return None, "complete"
        choice, steps = self.choice(source), self.arms[source].steps
        if choice.best is None:
            return None, "failed" if choice.done else ""
        stage: Stage = "final" if seed in self.config.seeds_of(source) else "tune"
        job = self.want(stage, source, choice.best, seed, steps)
        if job is None:
            return None, self.source(source, seed)[1]
        result = self.results.get(job.place)
        return job.place, result.state if result else ""

    def want(self, stage: Stage, name: str, point: Point, seed: int, steps: int) -> Job | None:
        """A run, which is in the plan now; None where what it begins from is not there."""
        begin_from, state = self.source(name, seed)
        if state != "complete":
            self.plan.complete &= state != ""
            return None
        job = Job(stage, name, point, seed, steps, begin_from)
        if job not in self.plan.jobs:
            self.plan.jobs.append(job)
        return job


def equal_seconds(config: SweepConfig, arms: Mapping[str, Arm]) -> dict[str, int]:
    """The steps that the seconds of the fastest arm pay for, of each slower one."""
    fewer: dict[str, int] = {}
    for names in ([n for n in block if n in arms] for block in config.blocks.values()):
        seconds = {name: arms[name].steps * (arms[name].seconds_per_step or 1.0) for name in names}
        for name in names:
            share = min(seconds.values()) / seconds[name]
            if share < SAME_STEPS:
                fewer[name] = max(1, round(arms[name].steps * share))
    return fewer
