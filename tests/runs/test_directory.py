"""A run directory is made once, written whole and never deleted."""

from pathlib import Path

import pytest

from headless.errors import HeadlessError
from headless.files import write_json, write_text
from headless.runs.directory import RunDirectory, begin_run, open_run


def begin(path: Path, seed: int = 0, **options: bool) -> RunDirectory:
    """A run that was begun there."""
    run = RunDirectory(path)
    with begin_run(run, lambda new: new.config.write_text(f"seed: {seed}\n"), **options):
        pass
    return run


def test_a_start_makes_the_directory(tmp_path: Path) -> None:
    run = begin(tmp_path / "deep" / "run")
    assert run.checkpoints.is_dir()
    assert run.last_checkpoint == tmp_path / "deep" / "run" / "checkpoints" / "last.ckpt"


def test_an_existing_run_is_kept_and_the_user_is_told_what_to_do(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", 1)
    with pytest.raises(HeadlessError, match=r"--run\.resume true.*--run\.name.*--run\.overwrite"):
        begin(run.path)
    assert run.read_config() == {"seed": 1}


def test_an_empty_directory_is_no_run_yet(tmp_path: Path) -> None:
    assert begin(tmp_path).path == tmp_path


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(HeadlessError, match="is a file"):
        begin(tmp_path / "run", overwrite=True)


def test_resume_uses_it_as_it_is(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    write_json(run.summary, {"steps": 3})
    assert begin(run.path, resume=True).read_summary() == {"steps": 3}


def test_overwrite_moves_aside_every_time(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        begin(tmp_path / "run", seed, overwrite=True)
    seeds = {p.name: RunDirectory(p).read_config()["seed"] for p in tmp_path.iterdir()}
    assert seeds == {"run": 3, "run.old-1": 1, "run.old-2": 2}


def test_open_run_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(HeadlessError, match="not a run directory"):
        open_run(tmp_path)
    with pytest.raises(HeadlessError, match="not a run directory"):
        open_run(tmp_path / "nowhere")


def test_what_is_missing_reads_as_empty(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.read_summary() == {}
    assert run.read_environment() == {}


def test_json_round_trip(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    values = {"name": "ü · 日本", "last": {"val/nll": 3.5}, "finished": False, "group": None}
    write_json(run.summary, values)
    write_json(run.environment, values)
    assert run.read_summary() == run.read_environment() == values


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "text"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")  # cannot be encoded: fails in the middle of writing
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_a_reader_sees_the_old_file_until_the_rename(tmp_path: Path) -> None:
    path = tmp_path / "text"
    write_text(path, "old")
    with open(path) as reader:
        write_text(path, "new")
        assert reader.read() == "old"  # a new file, not the old one cut and filled again
    assert path.read_text() == "new"
