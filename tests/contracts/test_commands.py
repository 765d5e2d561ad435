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


@pytest.mark.parametrize("name", COMMANDS)
def test_without_arguments_it_says_what_it_needs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headless: error: ")
