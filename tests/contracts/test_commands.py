"""Every command of `headless --help` exists, explains itself and says in a line what it lacks."""

import importlib

import pytest

from headless.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_it_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"headless.cli.{name}").main
    try:
        code = main([name, "--help"])
    except SystemExit as end:  # argparse's way
        code = end.code or 0
    assert code == 0
    assert f"headless {name}" in capsys.readouterr().out


def test_validate_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--data.path the prepared dataset. --data.val_batch_size sequences of" in text
    assert "--trainer.limit_val_batches How much of validation dataset" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_without_arguments_it_says_what_it_needs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headless: error: ")
