"""What a sweep is: its arms, how each is tuned, the seeds, the budgets, who works on it."""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from headless.errors import HeadlessError, suggestion
from headless.files import exclusive, write_text
from headless.isolation import usable_cores
from headless.runs.directory import check_name
from headless.structured import is_number, read_yaml
from headless.training.options import named_parts
from headless.training.parsing import CommandParser
from headless.training.settings import TAG

Settings = dict[str, Any]  # of a run, nested or by dotted name
Budget = Literal["equal_tokens", "equal_seconds"]
Stage = Literal["tune", "final", "equal_seconds"]  # of a run
ARMS = "arms.json"  # what each arm comes to; with it the sweep has begun
DEFAULTS = {"run": {"wandb": "disabled"}}  # of the base: what it leaves open
WAIT_SECONDS = 60.0  # for another machine that begins the same sweep
BEGIN_FROM = "begin_from"  # an arm's entry that names another arm
TAGS = (*get_args(Stage), "tuned")  # what runs are tagged with besides their arm
DECIDED = ("seed_everything", "run.name", "run.root", "run.resume", "run.overwrite")


@dataclass(frozen=True)
class Tuning:
    """How each arm comes to its own best settings: lowest val/nll on a seed outside of the mean.

    Args:
        parameters: by dotted name, `{grid: [0.002, 0.004]}`, or for tpe `{low: 0.001, high: 0.01,
            log: true}`.
        arms: other parameters, or null for none, of the arms whose names match a pattern.
        sampler: "grid" tries every combination, "turns" one parameter after another with the best
            of those before (and the first value of those to come), "tpe" is Optuna's TPESampler.
        trials: of an arm with tpe.
        at_once: trials of an arm that tpe proposes before it knows the first one's result.
        seed: of these runs.
        max_steps: of these runs, with a schedule to fit; all steps by default.
        widen: a best value on the edge of its grid adds the next one beyond, by the grid's ratio.
        widenings: how many values each parameter's grid may grow by.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, Any] = field(default_factory=dict)
    sampler: Literal["grid", "turns", "tpe"] = "grid"
    trials: PositiveInt = 20
    at_once: PositiveInt = 4
    seed: int = 0
    max_steps: PositiveInt | None = None
    widen: bool = True
    widenings: int = 4

    def parameters_of(self, arm: str) -> dict[str, dict[str, Any]]:
        """What is tuned of an arm."""
        found = dict(self.parameters)
        for pattern, parameters in self.arms.items():
            if fnmatchcase(arm, pattern):
                found = {} if parameters is None else found | parameters
        return found


@dataclass(frozen=True)
class Halving:
    """Stops tuning runs early: Optuna's SuccessiveHalvingPruner on val/nll at each validation.

    Args:
        min_resource: optimizer steps before the first decision.
        reduction_factor: one of so many goes on.
    """

    min_resource: PositiveInt
    reduction_factor: PositiveInt = 4

    def __post_init__(self) -> None:
        if self.reduction_factor < 2:
            raise HeadlessError("pruning.reduction_factor must be at least 2")


@dataclass(frozen=True)
class SweepConfig:
    """Train many runs and compare them: arms, each tuned for itself, with several seeds.

    Args:
        name: the sweep's directory below `root`.
        base: what all runs share: a run config, a list of such files, or settings with `parts`.
        objectives: by name, values of model.objective.
        optimizers: by name, values of model.optimizer.
        vary: further axes: `{size: {small: {model.backbone.hidden_size: 64}}}`. The arms are all
            combinations of objectives, optimizers and these.
        arms: further arms, by name: settings of a run. `begin_from: ARM` begins from the weights
            that the arm of that name ended with, seed by seed.
        seeds: of the runs that count; every arm's first run is made before any arm's second.
        arm_seeds: other seeds for some arms, by name or pattern: `{"*-muon": [1, 2, 3, 4, 5]}`; the
            last pattern that fits decides.
        tune: how each arm is tuned.
        budgets: "equal_tokens" trains every arm for its own steps; "equal_seconds" the slower ones
            again, for as many as the fastest one's seconds pay for, timed in turn in one process.
        within: an axis of `vary`; arms are compared with those of the same value only.
        baseline: an arm that the others are measured against; the first by default.
        root: the directory of all sweeps.
        workers: processes on this machine.
        threads: of a worker; the cores shared out by default.
        keep_tuning_checkpoints: keep the weights of the tuning runs, too.
        pruning: of tuning runs.
        slurm: submit the workers by submitit instead, with these parameters of its AutoExecutor
            (slurm_partition, timeout_min, cpus_per_task; `cluster: local` tries it out).
    """

    name: str
    base: str | list[str] | dict[str, Any]
    objectives: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)
    vary: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: dict[str, Settings] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    arm_seeds: dict[str, list[int]] = field(default_factory=dict)
    tune: Tuning = Tuning()
    budgets: list[Budget] = field(default_factory=lambda: ["equal_tokens"])
    within: str | None = None
    baseline: str | None = None
    root: Path = Path("runs/sweep")
    workers: PositiveInt = 1
    threads: PositiveInt | None = None
    keep_tuning_checkpoints: bool = False
    pruning: Halving | None = None
    slurm: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_kinds()
        names = list(self.settings)
        if not names:
            raise HeadlessError("a sweep needs arms: give objectives, optimizers, vary or arms")
        if self.baseline and self.baseline not in names:
            near = suggestion(self.baseline, names, "arms")
            raise HeadlessError(f"baseline: there is no arm {self.baseline!r}; {near}")
        if self.within and (self.within not in self.axes or self.arms):
            raise HeadlessError("within must be an axis, and there can be no arms beside the axes")
        self._check_seeds(names)
        for place, (arm, settings) in enumerate(self.settings.items()):
            check_name(arm)
            if decided := [key for key in DECIDED if key in settings]:
                raise HeadlessError(f"{arm}: the sweep decides {decided[0]}: leave it out")
            if BEGIN_FROM in settings and settings[BEGIN_FROM] not in names[:place]:
                raise HeadlessError(f"{arm}: {BEGIN_FROM} must name an arm that stands before it")
            if arm in TAGS or len(arm) > TAG:
                raise HeadlessError(
                    f"{arm}: a run is tagged with its arm: take a name of at most {TAG} characters "
                    f"that is none of {', '.join(TAGS)}"
                )
            for key, space in self.tune.parameters_of(arm).items():
                _check_space(f"tune: {key} of {arm}", space, self.tune.sampler)

    def _check_kinds(self) -> None:
        varied = {f"vary: {a}: {n}": v for a, of in self.vary.items() for n, v in of.items()}
        for place, value in (varied | {f"arms: {n}": v for n, v in self.arms.items()}).items():
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise HeadlessError(
                    f"{place} must be settings by name, {{}} for none, got {value!r}"
                )
        for pattern, value in self.tune.arms.items():
            if not isinstance(value, dict | None):
                raise HeadlessError(
                    f"tune: arms: {pattern} must be parameters or null, got {value!r}"
                )

    def _check_seeds(self, names: list[str]) -> None:
        for key, seeds in {"seeds": self.seeds, **self.arm_seeds}.items():
            if not seeds or len(set(seeds)) < len(seeds):
                where = key if key == "seeds" else f"arm_seeds: {key}"
                raise HeadlessError(f"{where} must be a list of different numbers")
        for pattern in self.arm_seeds:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = suggestion(pattern, names, "arms")
                raise HeadlessError(f"arm_seeds: no arm is called {pattern!r}; {near}")
        for arm in names:
            if self.tune.parameters_of(arm) and self.tune.seed in self.seeds_of(arm):
                raise HeadlessError(
                    f"tune.seed {self.tune.seed} is among the seeds of {arm}: what was tuned on it "
                    "would count in the mean; take another one"
                )

    @property
    def directory(self) -> Path:
        return self.root / self.name

    @property
    def base_file(self) -> Path:
        return self.directory / "base.yaml"

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds of the runs of an arm that count."""
        own = [seeds for pattern, seeds in self.arm_seeds.items() if fnmatchcase(arm, pattern)]
        return own[-1] if own else self.seeds

    @property
    def threads_of_worker(self) -> int:
        return self.threads or max(1, usable_cores() // self.workers)

    @property
    def axes(self) -> dict[str, dict[str, Settings]]:
        """The named settings of each axis."""
        named = (("objective", self.objectives), ("optimizer", self.optimizers))
        axes = {axis: {n: {f"model.{axis}": v} for n, v in of.items()} for axis, of in named if of}
        return axes | self.vary

    @property
    def combinations(self) -> dict[str, dict[str, str]]:
        """The names on each axis that make an arm, by its name."""
        axes = self.axes
        products = [*itertools.product(*axes.values())] if axes else []
        found = {"-".join(names): dict(zip(axes, names, strict=True)) for names in products}
        if len(found) < len(products):
            raise HeadlessError("two combinations of the axes have one name: rename their values")
        return found

    @property
    def settings(self) -> dict[str, Settings]:
        """The settings of each arm by its name."""
        axes = self.axes
        arms = {
            arm: {k: v for axis, name in names.items() for k, v in axes[axis][name].items()}
            for arm, names in self.combinations.items()
        }
        if twice := arms.keys() & self.arms.keys():
            raise HeadlessError(f"arms: {twice.pop()} is also a combination: rename it")
        return arms | self.arms

    @property
    def blocks(self) -> dict[str, list[str]]:
        """The arms that are compared with each other, by the name of what they share."""
        blocks: dict[str, list[str]] = {}
        for arm in self.settings:
            shared = self.combinations[arm][self.within] if self.within else ""
            blocks.setdefault(shared, []).append(arm)
        return blocks

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self), default=str))

    def write_base(self) -> None:
        """The base as one run config in the sweep's directory, with copies of its parts: whatever
        happens to them, all runs have the same.

        Raises:
            HeadlessError: the sweep was begun with another one, which stays.
        """
        base = {"parts": [self.base]} if isinstance(self.base, str) else self.base
        values = base if isinstance(base, dict) else {"parts": base}
        files = map(Path, named_parts(values.get("parts"), "base", Path()))
        read = [
            {key: value for key, value in one.items() if key != "parts"}
            for one in (DEFAULTS, *map(read_yaml, files), values)
        ]
        content, record = json.dumps(read), self.directory / "base.json"
        with exclusive(self.base_file, patience=WAIT_SECONDS):
            known = record.read_text(encoding="utf-8") if record.is_file() else None
            if known not in (None, content) and (self.directory / ARMS).is_file():
                raise HeadlessError(
                    f"{self.directory} was begun with another base, see {record}: give this sweep "
                    "another name"
                )
            parts = [f"base/{number}.yaml" for number in range(len(read) - 1)]
            (self.directory / "base").mkdir(exist_ok=True)
            for part, one in zip((*parts, self.base_file.name), read, strict=True):
                named = {"parts": parts} if part == self.base_file.name else {}
                write_text(self.directory / part, yaml.safe_dump(one | named, sort_keys=False))
            write_text(record, content)


def _check_space(place: str, space: Any, sampler: str) -> None:
    keys = set(space) if isinstance(space, dict) else set()
    is_grid = keys == {"grid"} and isinstance(space["grid"], list) and space["grid"]
    is_range = (
        sampler == "tpe"
        and {"low", "high"} <= keys <= {"low", "high", "log"}
        and is_number(space["low"])
        and is_number(space["high"])
        and (0 if space.get("log") else -math.inf) < space["low"] < space["high"]
    )
    if not is_grid and not is_range:
        raise HeadlessError(
            f"{place} must be {{grid: […]}}, or with sampler tpe {{low: …, high: …, log: …}}"
        )
    if is_grid and len({label_of(value) for value in space["grid"]}) < len(space["grid"]):
        raise HeadlessError(f"{place} holds two values that a run's name cannot tell apart")


def label_of(value: Any) -> str:
    """A value in a run's name."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in ".-_+" else "_" for c in text)


def read_sweep(
    config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> SweepConfig:
    """A sweep from a YAML file, or its content, and changes to it by dotted name."""
    parser = CommandParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SweepConfig, as_group=False)
    words = [f"--config={_text(config)}"]
    words += [f"--{name}={_text(value)}" for name, value in (overrides or {}).items()]
    return as_sweep(parser.instantiate_classes(parser.parse_args(words)))


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)


def as_sweep(values: Any) -> SweepConfig:
    """A sweep from what its parser gave."""
    return SweepConfig(**{name: _plain(values[name]) for name in SweepConfig.__dataclass_fields__})


def _plain(value: Any) -> Any:
    """Settings as they were written: of a class that can be imported the parser makes more."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
