"""A sweep from its config to the page; stopped, killed and gone on with; what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headless
from headless.cli.main import main
from headless.errors import HeadlessError
from headless.progress import Display
from headless.sweeps import arms
from headless.sweeps.config import read_sweep

LR = "model.optimizer.lr"
ROOT = Path(__file__).parents[2]


def config(dataset: Path, root: Path, **more: Any) -> dict[str, Any]:
    """A sweep of a tiny model."""
    return {
        "name": "tiny",
        "root": str(root),
        "base": {
            "model": {
                "backbone": {
                    **{"model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 1},
                    **{"num_attention_heads": 2, "intermediate_size": 32},
                    "max_position_embeddings": 32,
                },
                "optimizer": {"lr": 4e-3},
                "schedule": {"warmup_steps": 2},
                "compile": False,
            },
            "data": {"path": str(dataset), "sequence_length": 16, "batch_size": 8},
            "trainer": {"accelerator": "cpu", "max_steps": 8, "val_check_interval": 4},
            "checkpoint": {"every_n_steps": 2},
            "laboratory": {"enabled": False},
        },
        "objectives": {
            "ce": {"class_path": "CrossEntropy", "init_args": {"tied": True}},
            "cwt": {"class_path": "ContrastiveWeightTying"},
        },
        "seeds": [1],
        **more,
    }


@pytest.fixture(scope="module")
def tuned(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep that was trained: cwt has two rates, and its steps take half as long again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "time_steps", lambda runs, display: {"ce": 0.2, "cwt": 0.3})
        tune = {"max_steps": 4, "arms": {"cwt": {LR: {"grid": [1e-3, 1e-2]}}}, "widen": False}
        root = tmp_path_factory.mktemp("sweeps")
        budgets = ["equal_tokens", "equal_seconds"]
        wanted = config(dataset, root, tune=tune, budgets=budgets, baseline="ce")
        outcome = headless.sweep(wanted)
    return {"config": wanted, "outcome": outcome, "directory": root / "tiny"}


def test_it_tunes_trains_and_compares(tuned: dict[str, Any]) -> None:
    outcome, directory = tuned["outcome"], tuned["directory"]
    cwt = outcome["arms"]["cwt"]
    tried = {one["values"][LR]: one["nll"] for one in cwt["search"]}
    assert cwt["tuned"] == {LR: min(tried, key=tried.__getitem__)}
    assert outcome["arms"]["ce"]["search"] == []
    assert [cwt["budgets"][b]["steps"] for b in ("equal_tokens", "equal_seconds")] == [8, 5]
    runs = {str(p.parent.relative_to(directory)) for p in directory.glob("*/*/summary.json")}
    rate = f"lr{cwt['tuned'][LR]:g}"
    assert runs == {
        *(f"tune/cwt-lr{lr:g}-steps4-seed0" for lr in tried),
        *("final/ce-steps8-seed1", f"final/cwt-{rate}-steps8-seed1"),
        f"equal-seconds/cwt-{rate}-steps5-seed1",
    }
    shorter = headless.Run(directory / f"equal-seconds/cwt-{rate}-steps5-seed1")
    assert shorter.config["model"]["schedule"]["warmup_steps"] == 1
    assert shorter.summary["steps"] == 5
    assert shorter.config["run"]["tags"] == ["cwt", "equal_seconds", "tuned"]
    (nll,) = cwt["budgets"]["equal_seconds"]["nll_by_seed"].values()
    assert nll == shorter.last["val/nll"]
    bits = cwt["budgets"]["equal_seconds"]["bits_per_byte_by_seed"]
    assert bits == {1: shorter.last["val/bits_per_byte"]}
    assert not list(directory.glob("tune/*/checkpoints"))
    assert json.loads((directory / "sweep.json").read_text())["arms"]["cwt"]["tuned"]
    for page, of in (("report", "final"), ("report-equal-seconds", "equal-seconds")):
        numbers = json.loads((directory / page / "compare.json").read_text())
        assert numbers["baseline"] == "cross-entropy (tied)"
        assert {run["name"] for group in numbers["groups"] for run in group["runs"]} == {
            "ce-steps8-seed1",
            f"cwt-{rate}-steps{5 if of == 'equal-seconds' else 8}-seed1",
        }


def test_what_is_finished_is_never_trained_again(
    tuned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(headless, "pretrain", no_training)
    again = headless.sweep(tuned["config"])
    assert again["arms"] == tuned["outcome"]["arms"]
    (tuned["directory"] / "journal.log").unlink()  # the runs themselves say that they are done
    assert headless.sweep(tuned["config"])["arms"].keys() == again["arms"].keys()


def test_status_runs_nothing(tuned: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--config", json.dumps(tuned["config"]), "--status"]) == 0
    shown = capsys.readouterr().out
    assert "5 done, 0 running, 0 waiting" in shown
    nll = tuned["outcome"]["arms"]["ce"]["budgets"]["equal_tokens"]["nll_by_seed"]
    assert f"{next(iter(nll.values())):.4f} (1)" in shown


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": {"data": {"path": "elsewhere"}}}, "begun with another base"),
        ({"objectives": {"ce": {"class_path": "CrossEntropy"}}, "baseline": None},
         "final/ce-steps8-seed1 was begun with another model.objective"),
        ({"baseline": "cw"}, "there is no arm 'cw'; did you mean 'cwt'"),
        ({"tune": {"seed": 1, "parameters": {LR: {"grid": [1, 2]}}}}, "seed 1 is among the seeds"),
        ({"tune": {"parameters": {LR: {"low": 1, "high": 2}}}}, "or with sampler tpe"),
        ({"objectives": {}}, "a sweep needs arms"),
        ({"arms": {"a": {"run.name": "b"}}}, "the sweep decides run.name"),
    ],
)  # fmt: skip
def test_it_refuses(tuned: dict[str, Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(HeadlessError, match=words):
        headless.sweep(tuned["config"] | change)


def test_workers_are_submitted(tuned: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    wanted = tuned["config"] | {"slurm": {"cluster": "local", "timeout_min": 5}}
    page = tuned["directory"] / "report/report.html"
    page.unlink()
    assert len(headless.sweep(wanted)["jobs"]) == 1
    while not page.is_file():  # the only job finds nothing to train, and writes it
        time.sleep(0.1)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(HeadlessError, match="slurm needs submitit: pip install"):
        headless.sweep(wanted)


def test_objectives_by_their_whole_path_and_of_the_users_own(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be imported stays what was written; a worker imports the user's module as well.

    Its data come from a process forked from it, which waits for no lock that the worker holds.
    """
    name = f"own_{tmp_path.name.replace('-', '_')}"
    own = "from headless.objectives import CrossEntropy\nclass Own(CrossEntropy):\n    pass\n"
    (tmp_path / f"{name}.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    whole = "headless.objectives.contrastive.ContrastiveWeightTying"
    objectives = {
        "own": {"class_path": f"{name}.Own", "init_args": {"tied": True}},
        "whole": {"class_path": whole, "init_args": {"temperature": 0.5}},
    }
    given = tmp_path / "sweep.json"
    wanted = config(dataset, tmp_path, objectives=objectives, workers=2)
    wanted["base"]["data"]["num_workers"] = 1
    given.write_text(json.dumps(wanted))
    command = [sys.executable, "-m", "headless", "sweep", "--import", name, "--config", str(given)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads((tmp_path / "tiny/sweep.json").read_text())
    assert {arm: one["done"] for arm, one in outcome["arms"].items()} == {"own": 1, "whole": 1}
    assert (
        outcome["arms"]["whole"]["settings"]["model.objective"]["init_args"]["temperature"] == 0.5
    )


def test_what_was_timed_stays_and_what_is_refused_is_not_kept(
    dataset: Path, tmp_path: Path
) -> None:
    wanted = config(dataset, tmp_path)
    sweep = read_sweep(wanted)
    sweep.write_base()
    arms.find_arms(sweep, Display(False))
    file = sweep.directory / "arms.json"
    before = file.read_text()
    fewer = read_sweep(wanted | {"objectives": {"ce": wanted["objectives"]["ce"]}})
    assert list(arms.find_arms(fewer, Display(False))) == ["ce"]
    assert json.loads(file.read_text()) == json.loads(before)

    def refuse(found: object) -> None:
        raise HeadlessError("was begun with another lr")

    other = read_sweep(wanted | {"optimizers": {"fast": {"lr": 1.0}}})
    with pytest.raises(HeadlessError, match="was begun with another lr"):
        arms.find_arms(other, Display(False), refuse)
    assert json.loads(file.read_text()) == json.loads(before)


def test_an_arm_that_makes_no_run_is_named(dataset: Path, tmp_path: Path) -> None:
    wanted = config(dataset, tmp_path, objectives={}, arms={"odd": {"model.optimizer.lrr": 1}})
    with pytest.raises(HeadlessError, match="arm odd: .*did you mean 'model.optimizer.lr'"):
        headless.sweep(wanted)
    assert not (tmp_path / "tiny" / "final").exists()
    cwt = {"class_path": "ContrastiveWeightTying"}
    wanted["arms"] = {"wide": {"trainer.devices": 2, "model.objective": cwt}}
    with pytest.raises(HeadlessError, match="arm wide: .* set trainer.devices to 1"):
        headless.sweep(wanted)


def test_steps_are_timed_in_turn_before_and_after_a_switch(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(dataset, tmp_path)
    headless_one = {"model.objective": wanted["objectives"]["cwt"], "model.switch_at": 0.75}
    ce = {"model.objective": wanted["objectives"]["ce"]}
    sweep = read_sweep(wanted | {"objectives": {}, "arms": {"ce": ce, "switch": headless_one}})
    sweep.write_base()
    clock, order, real = [0.0], [], arms._stepper

    def stepper(cli: Any) -> Callable[[], None]:
        step = real(cli)

        def timed() -> None:
            step()
            is_softmax = getattr(cli.model.objective, "is_switched", False)
            order.append((cli.run.name, is_softmax))
            clock[0] += 3.0 if is_softmax else 1.0

        return timed

    monkeypatch.setattr(arms, "_stepper", stepper)
    monkeypatch.setattr(arms, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(arms, "ROUNDS", 1)
    monkeypatch.setattr(arms, "WARM_UP", 1)
    runs = {n: arms._build(sweep, n, s) for n, s in sweep.settings.items()}
    assert arms.time_steps(runs, Display(False)) == {"ce": 1.0, "switch": 0.75 + 0.25 * 3.0}
    half = [("ce", False), ("switch", False)]
    assert order == [*half, *half, *2 * [("ce", False), ("switch", True)]]


def test_a_timed_step_moves_the_rows_of_a_table(dataset: Path, tmp_path: Path) -> None:
    sweep = read_sweep(config(dataset, tmp_path) | {"optimizers": {"lazy": {"table": "lazy"}}})
    sweep.write_base()
    run = arms._build(sweep, "cwt-lazy", sweep.settings["cwt-lazy"])
    step, before = arms._stepper(run), run.model.embedding_VD.detach().clone()
    step()
    step()  # the schedule's first rate is 0
    moved = (run.model.embedding_VD != before).any(dim=1)
    assert 0 < moved.sum() < len(moved)


def test_a_killed_worker_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    """Its run goes on from the last checkpoint, to the numbers of a run that nobody disturbed."""
    wanted = config(dataset, tmp_path / "killed", objectives={})
    wanted["arms"] = {"cwt": {"model.objective": {"class_path": "ContrastiveWeightTying"}}}
    wanted["base"]["trainer"] |= {"max_steps": 40, "val_check_interval": 20}
    code = f"import headless; headless.sweep({wanted!r})"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    run = tmp_path / "killed/tiny/final/cwt-steps40-seed1"
    while not (run / "checkpoints/last.ckpt").is_file():
        assert worker.poll() is None
        time.sleep(0.002)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    first = (run / "checkpoints/first.safetensors").stat().st_mtime_ns
    assert not headless.Run(run).finished
    gone_on = headless.sweep(wanted)
    assert (run / "checkpoints/first.safetensors").stat().st_mtime_ns == first
    others = {"root": str(tmp_path / "undisturbed"), "workers": 2}
    undisturbed = headless.sweep(wanted | others)  # by processes of their own
    scores = [
        o["arms"]["cwt"]["budgets"]["equal_tokens"]["nll_by_seed"] for o in (gone_on, undisturbed)
    ]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 1
