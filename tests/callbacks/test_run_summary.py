"""The headline numbers: what they are made of, and what they cost."""

from pathlib import Path
from typing import Any

import pytest


def test_a_summary_is_not_training_and_costs_the_same_however_long_the_run(
    train, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which reading and writing a file of the run take a hundred seconds."""
    read_bytes, calls = Path.read_bytes, []

    def slow(path: Path) -> bytes:
        if path.name == "metrics.jsonl":
            calls.append(path)
            clock.now += 100.0
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", slow)
    reads = []
    for interval in ("6", "1"):
        calls.clear()
        run = train(
            f"every-{interval}", "--trainer.val_check_interval", interval, callbacks=[clock]
        )
        reads.append(len(calls))
        assert run.directory.read_summary()["seconds"] == 10.0
    assert reads[0] == reads[1]


def last_of(points: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in points:
        found |= {k: v for k, v in point.items() if not k.startswith(("progress/", "analysis/"))}
    return found


def test_last_values_are_those_of_the_file(train) -> None:
    """Of a run, of one that went on, and of one that was over already."""
    for steps, resume in (("7", "false"), ("12", "true"), ("12", "true")):
        run = train("run", "--trainer.max_steps", steps, "--run.resume", resume)
        summary = run.directory.read_summary()
        assert summary["finished"]
        assert summary["last"] == last_of(run.points)
        assert summary["anchors"].keys() == {"uniform", "unigram", "bigram"}
        assert {"val/nll", "train/loss", "memory/peak_host_gib"} <= set(summary["last"])
