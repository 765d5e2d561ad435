"""A run that was stopped anywhere and resumed ends as one that never was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

STEPS = 40
TIMED = ("progress/seconds", "throughput/", "memory/")


class Killed(BaseException):
    """Neither Lightning nor we handle it: the nearest thing to a kill inside a process."""


class Recorder(Callback):
    """Remembers the tokens of every batch; raises `Killed` at a chosen hook."""

    def __init__(self, kill_at: int | None = None, hook: str = "on_train_batch_start") -> None:
        self.seen: list[tuple[int, int]] = []
        self.kill_at = kill_at
        self.hook = hook
        self.calls = 0
        self.epoch_length = 0

    def _maybe(self, hook: str) -> None:
        if hook == self.hook:
            self.calls += 1
            if self.calls == self.kill_at:
                raise Killed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # noqa: ANN001
        self._maybe("on_train_batch_start")
        self.epoch_length = trainer.num_training_batches
        self.seen.append((pl_module.batches_seen, hash(batch["input_ids"].numpy().tobytes())))

    def on_validation_start(self, trainer, pl_module) -> None:  # noqa: ANN001
        self._maybe("on_validation_start")


def run(arguments: list[str], recorder: Recorder) -> dict[str, torch.Tensor]:
    """Train; returns the final weights."""
    cli = build(arguments)
    cli.trainer.callbacks.insert(1, recorder)
    fit(cli)
    return {name: value.clone() for name, value in cli.model.state_dict().items()}


def comparable(path: Path) -> list[dict]:
    """The logged points without what a clock or the machine decides."""
    points = [{k: v for k, v in p.items() if not k.startswith(TIMED)} for p in read_metrics(path)]
    return [p for p in points if any(not k.startswith("progress/") for k in p)]


@pytest.fixture
def options(run_arguments: Callable[..., list[str]]) -> Callable[[str], list[str]]:
    def make(name: str, *more: str) -> list[str]:
        return run_arguments(
            name,
            *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", "7"),
            *("--checkpoint.every_n_steps", "4"),
            *("--samples.every_n_steps", "10", "--samples.max_new_tokens", "4"),
            *("--model.backbone.extra", '{"hidden_dropout": 0.1}'),
            *("--trainer.gradient_clip_val", "1.0", "--model.schedule.warmup_steps", "5"),
            *more,
        )

    return make


@pytest.mark.parametrize("accumulate", [1, 3])
def test_stopped_at_any_step(options, tmp_path: Path, accumulate: int) -> None:
    """Every third step of more than three epochs is one at which a run dies, twice in a row."""
    more = ("--trainer.accumulate_grad_batches", str(accumulate), "--data.batch_size", "40")
    more += ("--laboratory.enabled", str(accumulate == 3))
    whole = Recorder()
    expected = run(options("whole", *more), whole)
    assert len(whole.seen) >= STEPS * accumulate * 0.8  # an epoch may end inside a window
    assert len(whole.seen) > 3 * whole.epoch_length  # the kills below fall into every epoch
    points = comparable(tmp_path / "runs" / "whole" / "metrics.jsonl")

    for kill in (2, 9, 16, 29, 37) if accumulate == 1 else (9, 29):
        name = f"killed-{kill}"
        seen: dict[int, int] = {}
        for n, hook in ((kill * accumulate, "on_train_batch_start"), (2, "on_validation_start")):
            recorder = Recorder(n, hook)
            with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
                run(options(name, *more, "--run.resume", "true"), recorder)
            seen |= dict(recorder.seen)
            if kill > 25:
                break  # too near the end for a second one
        recorder = Recorder()
        weights = run(options(name, *more, "--run.resume", "true"), recorder)
        seen |= dict(recorder.seen)
        assert seen == dict(whole.seen)
        assert weights.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(weights[key], value), key
        assert comparable(tmp_path / "runs" / name / "metrics.jsonl") == points


@pytest.mark.parametrize("table", ["dense", "rowwise"])
def test_stopped_under_muon(options, tmp_path: Path, table: str) -> None:
    """Two optimizers behind one state, or three, with rates by group."""
    more = ("--model.optimizer.class_path", "Muon", "--model.optimizer.table_lr", "3")
    more += ("--model.optimizer.table", table)
    more += ("--trainer.max_steps", "14")
    expected = run(options("whole", *more), Recorder())
    with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
        run(options("killed", *more), Recorder(10))
    weights = run(options("killed", *more, "--run.resume", "true"), Recorder())
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    points = [comparable(tmp_path / f"runs/{name}/metrics.jsonl") for name in ("whole", "killed")]
    assert points[0] == points[1]


def test_kill_minus_nine(options, tmp_path: Path) -> None:
    """A real process, killed while it trains and while it writes a checkpoint."""
    expected = run(options("whole"), Recorder())
    command = [sys.executable, "-m", "headless", "pretrain", *options("killed")]
    checkpoints = tmp_path / "runs" / "killed" / "checkpoints"
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}

    def writing() -> bool:
        return (checkpoints / "last.ckpt").exists() and (
            checkpoints / ".last.ckpt.partial"
        ).exists()

    def far() -> bool:
        return sum(1 for p in read_metrics(metrics) if p.get("progress/step", 0) >= 21) > 0

    for condition in (writing, far):
        process = subprocess.Popen(
            [*command, "--run.resume", "true"], stderr=subprocess.PIPE, env=environment
        )
        while not condition() and process.poll() is None:
            time.sleep(0.0005)
        assert process.poll() is None, process.communicate()[1].decode()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = subprocess.run(
        [*command, "--run.resume", "true"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    final = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert final["global_step"] == STEPS
    assert all(torch.equal(final["state_dict"][k], v) for k, v in expected.items())
    points = comparable(metrics)
    assert points == comparable(tmp_path / "runs" / "whole" / "metrics.jsonl")
    assert json.loads((tmp_path / "runs" / "killed" / "summary.json").read_text())["finished"]


def test_an_interrupt_says_how_to_go_on(options, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headless", "pretrain", *options("stopped")]
    metrics = tmp_path / "runs" / "stopped" / "metrics.jsonl"
    process = subprocess.Popen(
        [*command, "--trainer.max_steps", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(p.get("progress/step", 0) >= 6 for p in read_metrics(metrics)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate()
    assert process.returncode == 130
    assert "--run.resume true" in complaint
    assert "Traceback" not in complaint
    saved = torch.load(metrics.parent / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] >= 4


@pytest.mark.parametrize("kill", [9, 10, 15])
def test_stopped_in_a_run_of_epochs(options, tmp_path: Path, kill: int) -> None:
    """Limited by epochs instead of steps, validated at their ends, stopped within and between."""
    more = ("--trainer.max_steps", "-1", "--trainer.max_epochs", "3", "--data.batch_size", "72")
    more += ("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1")
    more += ("--checkpoint.every_n_steps", "1")
    whole = Recorder()
    expected = run(options("whole", *more), whole)
    assert len(whole.seen) == 3 * whole.epoch_length
    stopped, rest = Recorder(kill), Recorder()
    with pytest.raises((Killed, SystemExit, KeyboardInterrupt)):
        run(options("stopped", *more), stopped)
    weights = run(options("stopped", *more, "--run.resume", "true"), rest)
    assert dict(stopped.seen) | dict(rest.seen) == dict(whole.seen)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    points = [comparable(tmp_path / f"runs/{name}/metrics.jsonl") for name in ("whole", "stopped")]
    assert points[0] == points[1]
