"""The file holds what was logged, by whomever, under the names and at the point of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.progress import ProgressMonitor
from headless.runs.metrics import read_metrics


class StepMetric(Callback):
    """A metric called `step`, which Lightning takes for the x-axis of everything."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        pl_module.log("step", 1000.0 + trainer.global_step)


def test_a_metric_called_step_is_not_swallowed(train) -> None:
    run = train("run", "--trainer.max_steps", "4", callbacks=[StepMetric()])
    points = run.with_key("train/loss")
    assert [p["step"] for p in points] == [1001, 1002, 1003, 1004]
    assert [p["progress/step"] for p in points] == [1, 2, 3, 4]
    assert not [p for p in run.with_key("step") if "train/loss" not in p]


def test_epoch_is_a_kind_of_progress(train) -> None:
    run = train("run", "--trainer.max_steps", "4")
    assert not run.with_key("epoch")
    assert {p["progress/epoch"] for p in run.with_key("train/loss")} == {0}


def test_large_counts_are_exact(tmp_path: Path) -> None:
    """A float32 of Lightning's would be off by thousands here."""
    logger = MetricsFileLogger(tmp_path)
    logger.progress = ProgressMonitor()
    logger.progress.tokens = 123_456_789_123
    logger.log_metrics({"train/loss": 1.5, "epoch": 2.0})
    (point,) = read_metrics(tmp_path / "metrics.jsonl")
    assert point["progress/tokens"] == 123_456_789_123
    assert point["progress/epoch"] == 2


def test_a_logger_without_progress_keeps_the_step(tmp_path: Path) -> None:
    logger = MetricsFileLogger(tmp_path)
    logger.log_metrics({"x": 1.0}, step=7)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"x": 1.0, "progress/step": 7}]


def comparable(run: Any) -> list[dict[str, Any]]:
    """The points without what a clock or the machine decides."""
    timed = ("progress/seconds", "throughput", "memory")
    points = [{k: v for k, v in p.items() if not k.startswith(timed)} for p in run.points]
    return [p for p in points if not all(k.startswith("progress") for k in p)]


def test_a_resumed_file_equals_a_whole_one(train, kill) -> None:
    """Points behind the checkpoint are cut and logged again: none twice, none missing."""
    whole = train("whole")
    kill(7, "parts")
    metrics = whole.directory.path.parent / "parts" / "metrics.jsonl"
    before = read_metrics(metrics)
    assert before[-1]["progress/step"] >= 6  # the checkpoint is of step 5
    with open(metrics, "ab") as file:
        file.write(b'{"train/lo')
    parts = train("parts", "--run.resume", "true")
    assert comparable(parts) == comparable(whole)
    kept = [p for p in before if p["progress/step"] <= 5]
    assert parts.points[: len(kept)] == kept


def test_what_is_not_finite_is_null(train) -> None:
    class Infinite(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            pl_module.log("train/strange", torch.tensor(float("inf")))

    run = train("run", "--trainer.max_steps", "1", callbacks=[Infinite()])
    assert [p["train/strange"] for p in run.with_key("train/strange")] == [None]


@pytest.mark.parametrize("attribute", ["name", "version", "save_dir"])
def test_it_is_a_lightning_logger(tmp_path: Path, attribute: str) -> None:
    assert isinstance(getattr(MetricsFileLogger(tmp_path / "run"), attribute), str)
