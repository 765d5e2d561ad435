"""A config names classes, and imports nothing that the user did not ask for."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from jsonargparse import set_parsing_settings
from test_bad_input import fails

from headless.cli.main import main
from headless.errors import HeadlessError
from headless.training.assembly import build
from headless.training.parsing import take_imports

OWN = """
from pathlib import Path
from headless.objectives import ContrastiveWeightTying
Path({trace!r}).touch()
class Own(ContrastiveWeightTying):
    pass
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The name of a module in the current directory, and a file that it makes when imported."""
    name, trace = f"own_{tmp_path.name.replace('-', '_')}", tmp_path / "was-imported"
    (tmp_path / f"{name}.py").write_text(OWN.format(trace=str(trace)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as `python -m headless` has it
    yield name, trace
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "callback",
    [
        {"class_path": "LambdaCallback", "init_args": {"on_fit_start": "os.system"}},
        {
            "class_path": "lightning.pytorch.callbacks.LambdaCallback",
            "init_args": {"on_fit_start": "lightning.pytorch.cli.os.system"},
        },
        {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}},
        {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "x", "model": "y"}},
    ],
    ids=lambda c: c["class_path"],
)
def test_a_config_calls_no_function(
    callback: dict, tmp_path: Path, run_arguments, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(os, "system", lambda *given: called.append(given))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    line = fails(["pretrain", "--config", str(path), *run_arguments("run")], capsys)
    assert "a config may not name it" in line or "a config names the parts of headless" in line
    assert called == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["objective", "callback", "any"])
def test_a_config_alone_imports_no_module(
    place: str, own_module: tuple[str, Path], tmp_path: Path, run_arguments: Callable, capsys
) -> None:
    name, trace = own_module
    spec = {"class_path": f"{name}.Own"}
    config = {
        "objective": {"model": {"objective": spec}},
        "callback": {"trainer": {"callbacks": [spec]}},
        "any": {"model": {"backbone": {"extra": {"hidden_act": spec}}}},
    }[place]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = [a for a in run_arguments("run") if a not in ("--model.objective",)]
    arguments.remove("ContrastiveWeightTying")
    objective = [] if place == "objective" else ["--model.objective", "ContrastiveWeightTying"]
    fails(["pretrain", *objective, *arguments, "--config", str(path)], capsys)
    assert not trace.exists()


def test_the_user_asks_for_his_own_module(
    own_module: tuple[str, Path], run_arguments: Callable
) -> None:
    name, trace = own_module
    arguments = ["--import", name, *run_arguments("run", objective=f"{name}.Own")]
    assert type(build(arguments).model.objective).__name__ == "Own"
    assert trace.exists()


def test_a_model_of_his_own_asks_for_its_module(
    own_module: tuple[str, Path], run_arguments: Callable, tmp_path: Path, capsys
) -> None:
    """Every command that reads it, and what is said at the end names the module."""
    name, _ = own_module
    options = run_arguments("run", "--trainer.max_steps", "1", objective=f"{name}.Own")
    assert main(["pretrain", "--import", name, *options]) == 0
    generate = next(x for x in capsys.readouterr().out.splitlines() if "generate" in x)
    assert f"generate --import {name} --model" in generate
    set_parsing_settings(import_path_denylist=[name])  # as another process has it
    assert main(["generate", "--prompt", "It", "--model", str(tmp_path / "runs/run")]) == 2
    assert f"allow it with --import {name}" in capsys.readouterr().err.splitlines()[-1]


def test_imports_are_taken_out_of_the_arguments(own_module: tuple[str, Path]) -> None:
    name, _ = own_module
    assert take_imports(["RUN", f"--import={name}", "--a", "b", "--import", name]) == [
        *("RUN", "--a", "b")
    ]
    for wrong in (["--import"], ["--import", "no_such_module"], ["--import", "no-module!"]):
        with pytest.raises(HeadlessError, match="--import"):
            take_imports(wrong)
