"""Tiny real runs through the real builder, with a clock that the model moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback

import headless.callbacks.progress
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.assembly import RunCLI, build
from headless.training.pretrain import fit

OPTIONS = (
    *("--throughput.every_n_steps", "3", "--memory.every_n_steps", "3"),
    *("--laboratory.every_n_validations", "2", "--laboratory.num_sequences", "3"),
    *("--samples.every_n_steps", "4", "--samples.max_new_tokens", "3"),
    *("--checkpoint.every_n_steps", "5", "--data.batch_size", "4"),
    *("--model.backbone.extra", '{"hidden_dropout": 0.1}'),
)


@dataclass
class Run:
    """A run that was made, and what it wrote."""

    cli: RunCLI
    directory: RunDirectory

    @property
    def points(self) -> list[dict[str, Any]]:
        return read_metrics(self.directory.metrics)

    def with_key(self, key: str) -> list[dict[str, Any]]:
        return [point for point in self.points if key in point]

    def callback(self, kind: type) -> Any:
        return next(c for c in self.cli.trainer.callbacks if isinstance(c, kind))


@pytest.fixture
def arguments(run_arguments: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """What is given to the command for a run of `train`."""

    def make(name: str, *more: str) -> list[str]:
        return run_arguments(name, *OPTIONS, *more, objective="CrossEntropy")

    return make


@pytest.fixture
def train(arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Run]:
    """`train("name", "--option", "value", callbacks=[...], change=function of the cli)`."""

    def make(
        name: str,
        *more: str,
        callbacks: Sequence[Callback] = (),
        change: Callable[[RunCLI], None] = lambda cli: None,
    ) -> Run:
        cli = build(arguments(name, *more))
        cli.trainer.callbacks[1:1] = callbacks
        change(cli)
        fit(cli)
        return Run(cli, RunDirectory(tmp_path / "runs" / name))

    return make


class ModelClock(Callback):
    """A clock on which a forward pass for training takes one second and everything else a thousand.

    Put first among a run's callbacks, before validation, checkpoints and monitors begin.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.backbone.register_forward_pre_hook(self._forward)

    def _forward(self, module: Any, arguments: Any) -> None:
        self.now += 1.0 if module.training else 1000.0

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self.now += 1000.0


class Killed(BaseException):
    """Neither Lightning nor we handle it: the nearest thing to a kill inside a process."""


class Killer(Callback):
    """Ends the process, so to say, in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.fixture
def kill(train: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """`kill(step, "name", ...)`: as `train`, and it dies after that step."""

    def make(step: int, name: str, *more: str, callbacks: Sequence[Callback] = ()) -> None:
        with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
            train(name, *more, callbacks=[*callbacks, Killer(step)])

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ModelClock:
    """What the progress monitor takes for the time."""
    made = ModelClock()
    time = SimpleNamespace(perf_counter=made)
    monkeypatch.setattr(headless.callbacks.progress, "time", time)
    return made
