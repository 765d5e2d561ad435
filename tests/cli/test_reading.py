"""Commands that read a run write nothing but what was asked for, and only where it was named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.cli.main import main
from headless.training.validate import validate


def snapshot(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every file and directory below it: when it was written, and what it holds."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted([directory, *directory.rglob("*")])
    }


@pytest.fixture(scope="module")
def trained(run_arguments_in: Callable[..., list[str]], tmp_path_factory) -> Path:
    """A run of a few steps, and beside it a copy whose config names the first."""
    root = tmp_path_factory.mktemp("runs")
    quiet = ("--trainer.max_steps", "6")
    assert main(["pretrain", *run_arguments_in(root, "q2", *quiet)]) == 0
    shutil.copytree(root / "q2", root / "q3")
    return root


@pytest.mark.parametrize("place", ["q2", "q3", "q3/checkpoints/last.ckpt"])
def test_validating_writes_nothing(trained: Path, place: str) -> None:
    before = snapshot(trained)
    scores = validate(trained / place)
    assert {"val/nll", "val/loss", "val/accuracy"} <= scores.keys()
    assert snapshot(trained) == before


def test_reading_commands_write_what_was_named(
    trained: Path, text_files: Path, tmp_path: Path
) -> None:
    before = snapshot(trained)
    for arguments in (
        ["compare", trained / "q2", trained / "q3", "--output", tmp_path / "report"],
        ["export", "--checkpoint", trained / "q3", "--output", tmp_path / "model"],
        ["generate", "--model", trained / "q3", "--prompt", "the king", "--max_new_tokens", "2"],
    ):
        assert main([str(word) for word in arguments]) == 0
        assert snapshot(trained) == before


def test_results_of_a_copy_go_to_the_copy(trained: Path, text_files: Path, tmp_path: Path) -> None:
    """`evaluate` adds to the run that was named, and to no other."""
    runs = shutil.copytree(trained, tmp_path / "runs")
    before = snapshot(runs / "q2")
    text = f"text:{text_files}/00.txt"
    assert main(["evaluate", "--model", str(runs / "q3"), "--tasks", text]) == 0
    assert (runs / "q3" / "evaluations.jsonl").is_file()
    assert snapshot(runs / "q2") == before
