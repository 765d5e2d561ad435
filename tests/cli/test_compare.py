"""`headless compare` as it is called."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from synthetic_runs import write_run, write_runs

from headless.cli.main import main


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def headless(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def command(*arguments: object) -> Result:
        capsys.readouterr()
        return Result(main([str(word) for word in arguments]), *capsys.readouterr())

    return command


def test_it_writes_a_report_and_prints_the_table(headless, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = headless("compare", *write_runs(tmp_path / "runs"), "--output", output)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"report: {output / 'report.html'}"
    numbers = json.loads((output / "compare.json").read_text())
    nll = [g["metrics"]["val/nll"]["mean"] for g in numbers["groups"]]
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("nll")]
    assert [f"{value:.3f}" in row for value in nll] == [True, True]
    again = headless("compare", tmp_path / "runs/headless-1", "--output", output)
    assert again.returncode == 2
    assert "--overwrite true" in again.stderr
    replaced = headless(
        "compare", "--overwrite", "true", "--output", output, tmp_path / "runs/headless-1"
    )
    assert replaced.returncode == 0, replaced.stderr
    assert len(json.loads((output / "compare.json").read_text())["groups"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "{out}"], "name the runs to compare"),
        (["{run}"], "--output DIR"),
        (["{out}", "--output", "{out}"], "not a run directory"),
        (["{run}", "--output", "{out}", "--overwrite", "perhaps"], "overwrite"),
        (["{run}", "--output", "{out}", "--outptu", "x"], "did you mean 'output'?"),
    ],
)
def test_a_mistake_is_one_line(
    headless, tmp_path: Path, arguments: list[str], message: str
) -> None:
    run, out = write_run(tmp_path, "headless"), tmp_path / "out"
    result = headless("compare", *(a.format(run=run, out=out) for a in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not out.exists()


def test_warnings_reach_the_terminal(headless, tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless", steps=100, finished=False)
    result = headless("compare", run, "--output", tmp_path / "out")
    assert result.returncode == 0
    assert "warning: Not finished: headless-1" in result.stdout


def test_it_needs_neither_torch_nor_lightning(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    code = (
        "import sys; from headless.cli.main import main;"
        f"assert main(['compare', {str(run)!r}, '--output', {str(tmp_path / 'out')!r}]) == 0;"
        "heavy = {'torch', 'lightning', 'transformers', 'wandb', 'matplotlib.pyplot'};"
        "print(heavy & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "set()"


def test_a_folder_and_a_named_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path / "runs", seeds=(1,))
    arguments = ["compare", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--baseline", "headless-1"]) == 0
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    assert numbers["baseline"] == "headless (CWT)"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "compare.json",
        "report.html",
    ]
    assert main([*arguments, "--overwrite", "true", "--baseline", "headles-1"]) == 2
    assert "'headles-1'; there are" in capsys.readouterr().err
