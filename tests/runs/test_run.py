"""A run as it is read: its numbers, also before it is finished."""

from pathlib import Path

import pytest
from synthetic_runs import edit_json, write_run

import headless
from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory
from headless.runs.run import Run


def test_metrics_are_a_frame_of_all_points(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, "headless", steps=100))
    frame = run.metrics()
    assert len(frame) == len(run.points) == 24
    scored = frame.dropna(subset=["val/nll"])
    assert scored["progress/step"].tolist() == [50, 100]
    assert scored["val/nll"].iloc[-1] == run.last["val/nll"] == run.value("val/nll")


def test_a_run_that_is_going_on_is_read_anew_each_time(tmp_path: Path) -> None:
    path = write_run(tmp_path, "headless", steps=50, finished=False)
    run = Run(str(path))
    assert (run.summary, run.finished, run.value("step")) == ({}, False, 50)
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"progress/step": 60, "progress/tokens": 9, "val/nll": 1.5}\n{"progress')
    assert run.value("step") == 50  # what was read stays what it was
    assert Run(RunDirectory(path)).value("val/nll") == 1.5


def test_damage_names_the_file(tmp_path: Path) -> None:
    path = write_run(tmp_path, "headless")
    edit_json(path / "summary.json", seed="many")
    with pytest.raises(HeadlessError, match=r"summary\.json is damaged \(seed is a text, not a"):
        Run(path).seed  # noqa: B018
    with pytest.raises(HeadlessError, match="not a run directory"):
        Run(tmp_path)


def test_models_are_opened_by_who_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(write_run(tmp_path, "headless"))
    monkeypatch.setattr(headless, "load", lambda path: f"model of {path.name}", raising=False)
    assert run.model() == "model of headless-1"
