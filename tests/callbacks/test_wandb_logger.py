"""What the real W&B, offline, wrote into its own files; over two kills and resumes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.wandb_logger import (
    HEADLINES,
    SentPoints,
    TokenWandbLogger,
    points_on_disk,
    records,
)
from headless.runs.metrics import read_metrics

OFFLINE = ("--run.wandb", "offline")
LABORATORY = ("--laboratory.enabled", "true")


def shown(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What W&B gets of the points of a file: of the laboratory's numbers the headlines."""
    return [
        {k: v for k, v in p.items() if k in HEADLINES or not k.startswith("analysis/")}
        for p in points
    ]


def items(entries: Any) -> dict[str, Any]:
    return {"/".join(e.nested_key) or e.key: json.loads(e.value_json) for e in entries}


class Mirror:
    """All that the W&B files of a run directory hold, in the order of the processes."""

    def __init__(self, directory: Path) -> None:
        files = sorted(directory.glob("wandb/offline-run-*/run-*.wandb"), key=starting_time)
        self.processes = len(files)
        found = [record for path in files for record in records(path)]
        self.ids = {r.run.run_id for r in found if r.HasField("run")}
        self.runs = [r.run for r in found if r.HasField("run")]
        self.history = [items(r.history.item) for r in found if r.HasField("history")]
        self.metrics = {
            r.metric.name or r.metric.glob_name: r.metric for r in found if r.HasField("metric")
        }
        configs = [r.config for r in found if r.HasField("config")]
        configs += [r.config for r in self.runs]
        self.config = {k: v for c in configs for k, v in items(c.update).items()}

    @property
    def points(self) -> list[dict[str, Any]]:
        """The history in the form of `metrics.jsonl`."""
        own = ("_step", "_runtime", "_timestamp", "_wandb")
        points = [{k: v for k, v in h.items() if k not in own} for h in self.history]
        return [p for p in points if not any(key.endswith("/_type") for key in p)]

    @property
    def tables(self) -> list[dict[str, Any]]:
        """The points of the sampled texts."""
        return [h for h in self.history if h.get("samples/_type") == "table-file"]

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(p["progress/tokens"], p[key]) for p in self.points if key in p]


def starting_time(path: Path) -> float:
    times = (r.run.start_time.ToNanoseconds() for r in records(path) if r.HasField("run"))
    return next(times, 0)  # nothing written before the process was killed


def test_it_holds_every_point_of_the_file(train) -> None:
    run = train("run", *OFFLINE, *LABORATORY, "--run.group", "pair", "--run.tags", '["small"]')
    mirror = Mirror(run.directory.path)
    assert mirror.points == shown(run.points)
    looks = [p for p in mirror.points if any(key.startswith("analysis/") for key in p)]
    assert HEADLINES <= set(looks[-1])
    assert len(HEADLINES) < 20
    first = mirror.runs[0]
    assert (first.display_name, first.run_group, first.project) == ("run", "pair", "headless")
    assert "small" in first.tags
    assert mirror.config["model"]["backbone"]["hidden_size"] == 16
    assert mirror.config["trainer"]["max_steps"] == 12
    assert [t["progress/step"] for t in mirror.tables] == [4, 8, 12]
    assert all(t["samples/nrows"] == 1 for t in mirror.tables)
    assert not list(run.directory.path.glob("lightning_logs"))


def test_curves_are_drawn_over_tokens(train) -> None:
    run = train("run", *OFFLINE)
    metrics = Mirror(run.directory.path).metrics
    assert {"progress/tokens", "progress/seconds", "progress/flops", "progress/step"} <= set(
        metrics
    )
    assert metrics["*"].step_metric == "progress/tokens"
    assert metrics["val/nll"].step_metric == "progress/tokens"
    assert metrics["val/nll"].summary.min
    assert metrics["val/accuracy"].summary.max
    assert "trainer/global_step" not in metrics  # Lightning's axis, which jumps at validation


def test_two_kills_leave_whole_and_monotone_curves(train, kill) -> None:
    """The second process dies before it gets to where the first one was."""
    whole = train("whole", *LABORATORY)
    kill(9, "run", *OFFLINE, *LABORATORY)  # checkpoint of step 5
    kill(7, "run", *OFFLINE, *LABORATORY, "--run.resume", "true")
    run = train("run", *OFFLINE, *LABORATORY, "--run.resume", "true")
    mirror = Mirror(run.directory.path)
    assert mirror.processes == 3
    assert len(mirror.ids) == 1
    tokens = [p["progress/tokens"] for p in mirror.points]
    assert tokens == sorted(tokens)
    identities = [(p["progress/tokens"], *sorted(p)) for p in mirror.points]
    assert len(identities) == len(set(identities))
    in_file = [(p["progress/tokens"], *sorted(p)) for p in shown(run.points)]
    # A process warms up before it reports its speed: W&B keeps what each one said.
    speed = {"throughput/step_ms", "throughput/startup_seconds"}
    speedless = [[i for i in ids if not speed & set(i)] for ids in (identities, in_file)]
    assert speedless[0] == speedless[1]
    for key in ("train/loss", "val/nll", "geometry/anisotropy/embedding", "optim/lr"):
        expected = [(p["progress/tokens"], p[key]) for p in whole.with_key(key)]
        assert mirror.curve(key) == expected
    steps = [h["_step"] for h in mirror.history]  # a server drops what comes with an old step
    assert steps == list(range(len(steps)))
    assert [t["progress/step"] for t in mirror.tables] == [4, 8, 12]


def test_a_run_killed_before_its_first_checkpoint(train, kill) -> None:
    """It starts anew, and its curves do not."""
    kill(4, "run", *OFFLINE)
    run = train("run", *OFFLINE, "--run.resume", "true")
    mirror = Mirror(run.directory.path)
    expected = [(p["progress/tokens"], p["train/loss"]) for p in run.with_key("train/loss")]
    assert mirror.curve("train/loss") == expected


def test_two_runs_of_one_process_are_two(train) -> None:
    runs = [train(name, *OFFLINE, "--trainer.max_steps", "3") for name in ("a", "b")]
    mirrors = [Mirror(run.directory.path) for run in runs]
    assert mirrors[0].ids.isdisjoint(mirrors[1].ids)
    for run, mirror in zip(runs, mirrors, strict=True):
        assert mirror.runs[0].display_name == run.directory.path.name
        assert len(mirror.points) == len(run.points)


def test_a_metric_called_step_is_a_metric(tmp_path: Path) -> None:
    logger = TokenWandbLogger(tmp_path, MetricsFileLogger(tmp_path), name="run")
    logger._metrics_file.progress = progress = _Progress()
    for value in (5.0, 3.0):
        progress.tokens += 10
        logger.log_metrics({"step": value, "train/loss": 1.0})
    logger.finalize("success")
    mirror = Mirror(tmp_path)
    assert mirror.curve("step") == [(10, 5.0), (20, 3.0)]


def test_nothing_is_printed(train, capfd: pytest.CaptureFixture) -> None:
    train("run", *OFFLINE, "--trainer.max_steps", "2")
    output = capfd.readouterr()
    assert "wandb" not in (output.out + output.err).lower()


def test_a_half_written_ledger(tmp_path: Path) -> None:
    path = tmp_path / "sent.jsonl"
    point = {"progress/tokens": 10, "train/loss": 1.0}
    SentPoints(path, 99).add(point)
    with open(path, "ab") as file:
        file.write(b'{"progress/tok')
    sent = SentPoints(path, 99)
    assert sent.count == 1
    assert not sent.is_new(point)
    assert not sent.is_new({"progress/tokens": 9, "val/nll": 1.0})  # a curve would go back
    validated = {"progress/tokens": 10, "val/nll": 1.0}
    assert sent.is_new(validated)
    sent.add(validated)
    assert not SentPoints(path, 99).is_new(validated)
    assert len(read_metrics(path)) == 2
    assert SentPoints(path, 1).is_new(validated)  # W&B was killed with it in memory


def test_a_run_without_wandb_is_given_to_it_later(train, kill) -> None:
    kill(7, "run")
    run = train("run", *OFFLINE, "--run.resume", "true")
    assert Mirror(run.directory.path).points == shown(run.points)


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    """Cut anywhere, and with records longer than a block."""
    logger = TokenWandbLogger(tmp_path, MetricsFileLogger(tmp_path), name="run")
    logger._metrics_file.progress = progress = _Progress()
    for _ in range(5):
        progress.tokens += 10
        logger.log_metrics({f"metric/{i:04d}": 1.0 for i in range(2000)})
    logger.finalize("success")
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    data = path.read_bytes()
    assert points_on_disk(tmp_path / "wandb") == 5
    found = []
    for end in range(0, len(data), 1777):
        path.write_bytes(data[:end])
        found.append(points_on_disk(tmp_path / "wandb"))
    assert found == sorted(found)
    assert set(found) >= set(range(5))


class _Progress:
    tokens = 0

    def point(self) -> dict[str, float]:
        return {"progress/tokens": self.tokens}


def test_a_process_that_is_really_killed(train, arguments, tmp_path: Path) -> None:
    """SIGKILL: what W&B's own process had in memory is lost; the next process gives it again."""
    more = (*OFFLINE, *LABORATORY, "--trainer.max_steps", "80")
    # W&B's process of this one must not serve the other: it would outlive it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_SERVICE")}
    command = [sys.executable, "-m", "headless", "pretrain", *arguments("run", *more)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"
    while not any(p["progress/step"] >= 12 for p in read_metrics(metrics)):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    run = train("run", *more, "--run.resume", "true")
    mirror = Mirror(run.directory.path)
    assert mirror.processes == 2
    for key in ("train/loss", "val/nll", "geometry/anisotropy/embedding", "progress/flops"):
        assert mirror.curve(key) == [(p["progress/tokens"], p[key]) for p in run.with_key(key)]
    assert [h["_step"] for h in mirror.history] == list(range(len(mirror.history)))
