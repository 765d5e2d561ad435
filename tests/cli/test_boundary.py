"""Whatever goes wrong in a command is one line with a place, and exit code 2."""

import errno
import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import headless.cli.main
from headless.cli.main import main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs a command that ends with an error."""

    def run(error: BaseException) -> int:
        def fail(arguments: list[str]) -> None:
            raise error

        module = types.SimpleNamespace(main=fail)
        monkeypatch.setattr(headless.cli.main.importlib, "import_module", lambda name: module)
        return main(["compare"])

    return run


def test_an_unforeseen_error_is_a_line_and_a_kept_traceback(
    command, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command(ValueError("first\nsecond")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    pattern = r"headless: error: ValueError: first \(at headless/cli/main.py:\d+; the traceback "
    found = re.fullmatch(pattern + r"is in (.+)\)", line)
    assert found
    kept = Path(found.group(1))
    assert kept.parent == tmp_path
    assert "in fail" in kept.read_text()
    assert "second" in kept.read_text()


def test_nowhere_to_keep_it(command, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert command(KeyError("x")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headless: error: KeyError: 'x' (at headless/cli/main.py:")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aaa"), "aaa: File name too long"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), "d: Is a directory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "f"), "f: No such file"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/last.ckpt"), "no room to write /x/"),
        (MemoryError("Unable to allocate 8 EiB"), "memory ran out (Unable to allocate 8 EiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "lower the batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "lower the batch size"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    ],
)
def test_what_a_system_says(command, capsys, error: Exception, message: str, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command(error) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert ("traceback is in" in line) == isinstance(error, RecursionError)


def test_a_reader_that_is_gone_is_no_error(command, capfd) -> None:
    assert command(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 141
    assert capfd.readouterr().err == ""


def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "x", "--prompt", "caf\udce9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "headless: error: 'caf\\udce9' is no text in UTF-8: write it in UTF-8"


@pytest.mark.parametrize("option", ["--seeds=[-1]", "--seeds=4294967296", "--split_seed=-1"])
def test_seeds_of_any_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--model=x", "--task=x", "--output=x", option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be from 0 to 4294967295, got" in line


@pytest.mark.parametrize("option", ["--tokens=-1", "--length=0"])
def test_no_text_to_analyze(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--model=x", "--output=x", option]) == 2
    assert "must be at least 1, got" in capsys.readouterr().err


def test_an_error_in_a_module_of_the_users_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_deep.py").write_text("def deep():\n    return 1 + None\ndeep()\n")
    assert main(["pretrain", "--import", "own_deep"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "it cannot be imported (TypeError: " in line
    assert "; the traceback is in" in line
    (kept,) = (tmp_path / "kept").iterdir()
    assert 'own_deep.py", line 2, in deep' in kept.read_text()
