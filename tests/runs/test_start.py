"""A start is taken back where it led to nothing, and only there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headless.runs.directory import RunDirectory, begin_run
from headless.runs.metrics import append_point, read_metrics


def describe(run: RunDirectory) -> None:
    run.config.write_text("seed: 1\n")


def die(run: RunDirectory, work: Callable[[], object], **options: object) -> None:
    """Begin it, and die after some work."""
    with begin_run(run, describe, **options):
        work()
        raise RuntimeError("died")


@pytest.mark.parametrize("resume", [False, True])
def test_steps_of_other_processes_are_kept(tmp_path: Path, resume: bool) -> None:
    """A strategy that starts all its processes trains in none that is asked here."""
    run, step = RunDirectory(tmp_path / "runs" / "run"), 2 if resume else 0
    if resume:
        with begin_run(run, describe):
            append_point(run.metrics, {"progress/step": step})
            run.last_checkpoint.write_text("old")
    with pytest.raises(RuntimeError, match="died"):
        die(run, lambda: append_point(run.metrics, {"progress/step": 3}), resume=resume, step=step)
    assert read_metrics(run.metrics)[-1] == {"progress/step": 3}


def test_a_checkpoint_is_a_step(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "run")
    with pytest.raises(RuntimeError, match="died"):
        die(run, lambda: run.last_checkpoint.write_text("new"))
    assert run.last_checkpoint.is_file()


def test_points_of_the_beginning_are_no_steps(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "run")
    with pytest.raises(RuntimeError, match="died"):
        die(run, lambda: append_point(run.metrics, {"progress/step": 0}))
    assert list(run.path.parent.iterdir()) == []


def test_a_run_is_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    for overwrite in (False, True):
        with begin_run(RunDirectory(tmp_path / "run"), describe, overwrite=overwrite):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "disk.old-1", "run"]
    assert (tmp_path / "disk" / "config.yaml").is_file()


def test_what_other_commands_made_meanwhile_is_theirs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "run")
    with begin_run(run, describe):
        pass
    with pytest.raises(RuntimeError, match="died"):
        die(run, lambda: append_point(run.evaluations, {"task": "blimp"}), resume=True)
    assert read_metrics(run.evaluations) == [{"task": "blimp"}]
