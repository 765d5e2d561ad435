"""The last scores are those of the state that a run leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit
from headless.training.validate import validate


class Stopper(Callback):
    """Wants to stop after a step, as a limit of time does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        trainer.should_stop = trainer.global_step >= self.step


class Killed(BaseException):
    """Neither Lightning nor we handle it."""


class Killer(Callback):
    """Ends the process, so to say, in the validation that follows a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_end(self, trainer, pl_module) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.fixture
def train(run_arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., RunDirectory]:
    def make(name: str, *more: str, callbacks: tuple[Callback, ...] = ()) -> RunDirectory:
        quiet = ("--laboratory.enabled", "false", "--samples.every_n_steps", "100")
        cli = build(run_arguments(name, *quiet, *more))
        cli.trainer.callbacks[1:1] = callbacks
        fit(cli)
        return RunDirectory(tmp_path / "runs" / name)

    return make


def validated(run: RunDirectory) -> list[int]:
    """The steps that scores stand at."""
    return [p["progress/step"] for p in read_metrics(run.metrics) if "val/nll" in p]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (("--trainer.max_steps", "10", "--trainer.val_check_interval", "4"), [4, 8, 10]),
        (("--trainer.max_steps", "8", "--trainer.val_check_interval", "4"), [4, 8]),
        (("--trainer.max_steps", "3", "--trainer.val_check_interval", "4"), [3]),
        (("--trainer.max_steps", "5", "--trainer.limit_val_batches", "0"), []),
        (
            (
                *("--trainer.max_steps", "4", "--trainer.accumulate_grad_batches", "2"),
                *("--trainer.val_check_interval", "6"),
            ),
            [3, 4],
        ),
        (
            (
                *("--trainer.max_steps", "-1", "--trainer.max_epochs", "3"),
                *("--trainer.limit_train_batches", "3", "--trainer.val_check_interval", "1.0"),
                *("--trainer.check_val_every_n_epoch", "2"),
            ),
            [6, 9],
        ),
    ],
    ids=["not a multiple", "a multiple", "never due", "switched off", "accumulated", "epochs"],
)
def test_validated_at_the_end_and_once(train, options, steps) -> None:
    run = train("run", *options)
    assert validated(run) == steps
    last = {k: v for k, v in run.read_summary()["last"].items() if k.startswith("val/")}
    points = [p for p in read_metrics(run.metrics) if "val/nll" in p]
    assert last == ({k: v for k, v in points[-1].items() if k in last} if steps else {})


def test_the_scores_are_those_of_the_last_checkpoint(train) -> None:
    run = train("run", "--trainer.max_steps", "10", "--trainer.val_check_interval", "4")
    saved = torch.load(run.last_checkpoint, weights_only=True)
    assert saved["global_step"] == 10
    ours = run.read_summary()["last"]
    for name, value in validate(run.path).items():
        assert ours[name] == pytest.approx(value, rel=1e-5), name


def test_a_limit_of_time_is_an_end_like_any_other(train) -> None:
    """Also where the epoch's turn to be validated has not come."""
    run = train("run", callbacks=(Stopper(8),))
    assert validated(run) == [6, 8]
    epochs = ("--trainer.check_val_every_n_epoch", "5", "--trainer.val_check_interval", "1.0")
    assert validated(train("epochs", *epochs, callbacks=(Stopper(8),))) == [8]


def test_a_run_that_is_over_is_not_validated_again(train) -> None:
    run = train("run", "--trainer.max_steps", "8")
    before = read_metrics(run.metrics)
    assert validated(run) == [6, 8]
    train("run", "--trainer.max_steps", "8", "--run.resume", "true")
    assert read_metrics(run.metrics) == before


def comparable(run: RunDirectory) -> list[dict[str, Any]]:
    clocked = ("progress/seconds", "throughput/", "memory/")
    points = [
        {k: v for k, v in p.items() if not k.startswith(clocked)} for p in read_metrics(run.metrics)
    ]
    return [p for p in points if any(not k.startswith("progress/") for k in p)]


def test_killed_in_the_last_validation(train, tmp_path: Path) -> None:
    """No checkpoint of the last step is written before its scores are."""
    options = ("--trainer.max_steps", "8", "--checkpoint.every_n_steps", "1")
    whole = train("whole", *options)
    with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
        train("killed", *options, callbacks=(Killer(8),))
    killed = RunDirectory(tmp_path / "runs" / "killed")
    assert torch.load(killed.last_checkpoint, weights_only=True)["global_step"] == 7
    train("killed", *options, "--run.resume", "true")
    assert comparable(killed) == comparable(whole)
