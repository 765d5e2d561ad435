"""`headless prepare` as users meet it: a process, its exit code, what it leaves behind."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.cli.main import main
from headless.data.stream import open_dataset

COMMAND = [sys.executable, "-m", "headless", "prepare"]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command without a process of its own."""

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = main(["prepare", *map(str, arguments)])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return command


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_same_input_gives_the_same_bytes_with_any_number_of_workers(
    text_files: Path, tmp_path: Path
) -> None:
    for workers in (1, 2, 2):
        output = tmp_path / "same" if workers == 1 else tmp_path / f"{workers}"
        shutil.rmtree(output, ignore_errors=True)
        result = run(
            *("--input", text_files, "--output", output, "--vocab_size", 350),
            *("--num_workers", workers, "--validation_fraction", 0.2),
            PYTHONHASHSEED=str(workers),
        )
        assert result.returncode == 0, result.stderr
        assert contents(output) == contents(tmp_path / "same")
    assert "unigram_counts.npy" in contents(output)
    splits = open_dataset(output).manifest.splits
    for numbers in splits.values():  # the table tells what the manifest holds
        row = [line for line in result.stdout.splitlines() if f"{numbers['tokens']:,}" in line]
        assert f"{numbers['bytes'] / numbers['tokens']:.2f}" in row[0]
    assert "vocabulary 350" in result.stdout
    assert "tokenising" in result.stderr  # nobody watches, yet a log tells where it is


def bad_commands(directory: Path, text_files: Path, dataset: Path) -> dict[str, list[object]]:
    """Arguments, each with what the error must say."""
    (directory / "latin.txt").write_bytes(b"caf\xe9")
    (directory / "blank").mkdir()
    (directory / "blank" / "a.txt").write_text(" \n")
    (directory / "one.txt").write_text("one document")
    (directory / "field.jsonl").write_text('{"body": "no"}\n')
    (directory / "file").write_text("in the way")
    good, out = ["--input", text_files], directory / "out"
    return {
        "there is no": ["--input", directory / "missing.txt", "--output", out],
        "latin.txt is not UTF-8 at byte 3": ["--input", directory / "latin.txt", "--output", out],
        "no text, but": ["--input", directory / "blank", "--output", out],
        "--document_separator": ["--input", directory / "one.txt", "--output", out],
        "field.jsonl:1 has no field 'text' (it has body)": [
            *("--input", directory / "field.jsonl", "--output", out)
        ],
        "exists: give another": [*good, "--output", dataset],
        "cannot be written": [*good, "--output", directory / "file" / "out"],
        "vocab_size 3 is too small": [*good, "--output", out, "--vocab_size", 3],
        "no tokenizer can be loaded": [*good, "--output", out, "--tokenizer", directory / "none"],
        "did you mean 'vocab_size'": [*good, "--output", out, "--vocabsize", 300],
        "Got value: many": [*good, "--output", out, "--vocab_size", "many"],
    }


def test_bad_input_is_one_line_and_leaves_nothing(
    prepare, text_files: Path, dataset: Path, tmp_path: Path
) -> None:
    before = contents(dataset)
    commands = bad_commands(tmp_path, text_files, dataset)
    there = set(tmp_path.iterdir())
    for message, arguments in commands.items():
        result = prepare(*arguments)
        errors = [line for line in result.stderr.splitlines() if line.startswith("headless: error")]
        assert result.returncode == 2, (message, result.stderr)
        assert len(errors) == 1, (message, result.stderr)
        assert message in errors[0]
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
    assert set(tmp_path.iterdir()) == there
    assert contents(dataset) == before


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents enough for some seconds of work."""
    path = tmp_path_factory.mktemp("large") / "large.jsonl"
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubcdfgklmnprst", k=draw.randint(2, 9))) for _ in range(5000)]
    texts = (" ".join(draw.choices(words, k=2500)) for _ in range(300))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def stop(large_file: Path, output: Path, stage: str, with_signal: int) -> int:
    """Start the command, stop it once `stage` has begun; returns its exit code."""
    process = subprocess.Popen(
        [*COMMAND, "--input", str(large_file), "--output", str(output), "--overwrite", "true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A suite that was started in the background may have inherited that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(output.parent.glob(f".{output.name}.partial-*/{stage}")):
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.002)
    process.send_signal(with_signal)
    return process.wait(timeout=100)


@pytest.mark.parametrize("stage", [".", "tokenizer", "train.bin"])
def test_a_killed_run_leaves_no_output_and_the_next_one_clears_up(
    prepare, large_file: Path, text_files: Path, tmp_path: Path, stage: str
) -> None:
    output = tmp_path / "data"
    assert stop(large_file, output, stage, signal.SIGKILL) == -signal.SIGKILL
    assert not output.exists()
    assert prepare("--input", text_files, "--output", output, "--vocab_size", 300).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    open_dataset(output)


def test_an_interrupted_overwrite_keeps_the_old_dataset(
    large_file: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "data"
    shutil.copytree(dataset, output)
    assert stop(large_file, output, "train.bin", signal.SIGINT) == 130
    assert contents(output) == contents(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_separator_can_be_written_in_a_shell(prepare, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("\n\n".join(f"{i} is a number, {i * i} its square\n" * 3 for i in range(10)))
    output = tmp_path / "data"
    result = prepare(
        *("--input", text, "--output", output, "--document_separator", r"\n\n"),
        *("--vocab_size", 300),
    )
    assert result.returncode == 0, result.stderr
    splits = open_dataset(output).manifest.splits
    assert splits["train"]["documents"] + splits["validation"]["documents"] == 10
