"""What every observer's docstring says that it logs is what it logs."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback

import headless.callbacks
from headless.callbacks.laboratory import LaboratoryMonitor
from headless.callbacks.progress import ProgressMonitor
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

ROW = re.compile(r"^\s*\| (`.+?`.*?) \| (.+?) \|$", re.MULTILINE)
CONDITIONAL = re.compile(r"^GPU:|only where")  # such a row need not appear on every machine


def discover() -> list[type[Callback]]:
    """Every callback that the package defines."""
    found: set[type[Callback]] = set()
    for module in pkgutil.iter_modules(headless.callbacks.__path__):
        name = f"headless.callbacks.{module.name}"
        for member in vars(importlib.import_module(name)).values():
            if inspect.isclass(member) and issubclass(member, Callback):
                found |= {member} if member.__module__ == name else set()
    found -= {LaboratoryMonitor}  # its table has patterns: test_monitor holds it to them
    return sorted(found, key=lambda c: c.__name__)


CALLBACKS = discover()


def table(callback: type[Callback]) -> dict[str, str]:
    """The documented keys, as regular expressions, and their meanings.

    A row `a/layer_00` ... stands for all layers.
    """
    keys = {}
    for cell, meaning in ROW.findall(callback.__doc__ or ""):
        for key in re.findall(r"`(.+?)`", cell):
            pattern = re.escape(key)
            if "..." in cell:
                pattern = re.sub(r"00$", r"\\d\\d", pattern)
            keys[pattern] = meaning
    return keys


@pytest.fixture(scope="module")
def logged(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[type[Callback]]], set[str]]:
    """The keys in the file of a run that only these callbacks watch."""

    def run(watchers: list[type[Callback]]) -> set[str]:
        root = tmp_path_factory.mktemp("runs")
        cli = build(
            [
                *("--run.name", "run", "--run.root", str(root), "--run.wandb", "disabled"),
                *("--model.objective", "CrossEntropy", "--model.backbone.preset", "pythia-14m"),
                *("--model.backbone.hidden_size", "16", "--model.backbone.num_hidden_layers", "2"),
                *("--data.path", str(dataset), "--data.sequence_length", "16"),
                *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
                *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
                *("--trainer.check_val_every_n_epoch", "null", "--trainer.log_every_n_steps", "1"),
                *("--throughput.every_n_steps", "1", "--memory.every_n_steps", "1"),
            ]
        )
        cli.trainer.callbacks = [
            c
            for c in cli.trainer.callbacks
            if type(c) in (*watchers, ProgressMonitor) or type(c) not in CALLBACKS
        ]
        fit(cli)
        return {key for point in read_metrics(root / "run" / "metrics.jsonl") for key in point}

    return run


@pytest.fixture(scope="module")
def unwatched(logged: Callable[[list[type[Callback]]], set[str]]) -> set[str]:
    """The keys of a run that nobody watches: the module's, and progress."""
    return logged([])


def test_found_them_all() -> None:
    assert {"SampleWriter", "MemoryMonitor", "ThroughputMonitor"} <= {c.__name__ for c in CALLBACKS}


@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda c: c.__name__)
def test_it_has_a_table_or_says_that_it_logs_nothing(callback) -> None:
    silent = re.search(r"[Ll]ogs no(thing| metric)", callback.__doc__ or "")
    assert bool(table(callback)) != bool(silent)


@pytest.mark.parametrize("callback", [c for c in CALLBACKS if table(c)], ids=lambda c: c.__name__)
def test_table_and_log_are_the_same(callback, logged, unwatched) -> None:
    if callback is ProgressMonitor:
        keys = {k for k in unwatched if k.startswith("progress/")}
    else:
        keys = logged([callback]) - unwatched
    assert keys
    patterns = table(callback)
    for key in keys:
        assert any(re.fullmatch(p, key) for p in patterns), f"{key} is not in the table"
    for pattern, meaning in patterns.items():
        there = any(re.fullmatch(pattern, key) for key in keys)
        assert there or CONDITIONAL.search(meaning), f"{pattern} was not logged"


@pytest.mark.parametrize("callback", [c for c in CALLBACKS if table(c)], ids=lambda c: c.__name__)
def test_keys_are_well_formed(callback) -> None:
    """group/name in snake case, as everywhere."""
    for key in re.findall(r"^\s*\| `(.+?)`", callback.__doc__ or "", re.MULTILINE):
        assert re.fullmatch(r"[a-z_]+(/[a-z0-9_]+)+", key)
