"""What the scripts read from the runs of a sweep about the inside of their models."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic_runs import write_run

SCRIPTS = Path(__file__).parents[2] / "scripts"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
FALLS, RISES, FALLS_AGAIN = 3.0, 2.5, 1.5


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def course(compression: float) -> np.ndarray:
    """A rank that falls until step 8, rises until step 64, and may fall again."""
    corners = np.cumsum([math.log(60), -math.log(FALLS), math.log(RISES), -math.log(compression)])
    return np.exp(np.interp(range(len(STEPS)), [0, 4, 7, 9], corners))


def write_sweep(root: Path) -> Path:
    """Two arms with two seeds each, of which one run is not finished, and a run that only tuned."""
    final = root / "final"
    for arm, compression in (("ce-0.16m", FALLS_AGAIN), ("cwt-0.16m", 1.0)):
        for seed in (1, 2):
            finished = (arm, seed) != ("cwt-0.16m", 2)
            name = f"{arm}-lr0.008-steps400-seed{seed}"
            run = write_run(final, "headless", seed, name=name, finished=finished)
            with (run / "metrics.jsonl").open("a") as file:
                for step, rank in zip(STEPS, course(compression), strict=True):
                    names = ("covariance_spectra/norm_f/entropy_rank", "anisotropy/norm_f")
                    look = {f"analysis/{name}": rank for name in names}
                    look["analysis/covariance_spectra/norm_f/exponent"] = 1 / rank
                    file.write(json.dumps({"progress/step": step} | look) + "\n")
    write_run(root / "tune", "headless", 0, name="ce-0.16m-lr0.008-steps400-seed0")
    return root


def test_finished_runs_by_arm_and_seed(tmp_path: Path) -> None:
    finished_runs = importlib.import_module("sweep_runs").finished_runs
    found = [
        (arm, seed, run.directory.path.name)
        for arm, seed, run in finished_runs(write_sweep(tmp_path))
    ]
    assert found == [
        ("ce-0.16m", "1", "ce-0.16m-lr0.008-steps400-seed1"),
        ("ce-0.16m", "2", "ce-0.16m-lr0.008-steps400-seed2"),
        ("cwt-0.16m", "1", "cwt-0.16m-lr0.008-steps400-seed1"),
    ]


def test_phases_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, figure = tmp_path / "phases.json", tmp_path / "phases.svg"
    arguments = [str(write_sweep(tmp_path / "sweep")), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["phases.py", *arguments, "--figure", str(figure)])
    importlib.import_module("phases").main()
    arms = json.loads(output.read_text())["arms"]
    assert {arm: list(runs) for arm, runs in arms.items()} == {
        "ce-0.16m": ["1", "2"],
        "cwt-0.16m": ["1"],
    }
    for arm, compression in (("ce-0.16m", FALLS_AGAIN), ("cwt-0.16m", 1.0)):
        run = arms[arm]["1"]
        assert run["steps"] == STEPS
        assert run["rankme"] == pytest.approx(course(compression))
        assert run["phases"]["rankme_collapse"] == pytest.approx(FALLS)
        assert run["phases"]["rankme_expansion"] == pytest.approx(RISES)
        assert run["phases"]["rankme_compression"] == pytest.approx(compression)
        assert run["there"]["collapse"]
        assert run["there"]["compression"] == (compression > 1.1)
    lines = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()}
    end = 60 / FALLS * RISES
    assert f"{end / FALLS_AGAIN:.1f} | 3.00 | 2.50 | 1.50 | 2, " in lines["| ce-0.16m"]
    assert lines["| ce-0.16m"].endswith("2 of 2 |")
    assert f"{end:.1f} | 3.00 | 2.50 | 1.00 | 1, " in lines["| cwt-0.16m"]
    assert lines["| cwt-0.16m"].endswith("0 of 1 |")
    assert "<svg" in figure.read_text()


def test_what_was_asked_of_a_run_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copying = importlib.import_module("copying")
    asked: list[str] = []

    def analyze(path: Path, **options: Any) -> Any:
        asked.append(path.name)
        numbers = dict.fromkeys(copying.COLUMNS, 0.25) | {"induction": 1.5}
        return SimpleNamespace(scalars={f"copying/{k}": v for k, v in numbers.items()})

    monkeypatch.setattr(copying.headless, "analyze", analyze, raising=False)
    output, sweep = tmp_path / "copying.json", write_sweep(tmp_path / "sweep")
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["copying.py", str(sweep), "--output", str(output)])
        copying.main()
    assert asked == [
        run.directory.path.name
        for _, _, run in importlib.import_module("sweep_runs").finished_runs(sweep)
    ]
    runs = json.loads(output.read_text())["runs"]
    assert list(runs["ce-0.16m"]) == ["1", "2"]
    assert runs["cwt-0.16m"]["1"]["induction"] == 1.5
    assert "| ce-0.16m | 2 |" in capsys.readouterr().out


def test_effects_are_paired_by_seed_and_optimizer() -> None:
    """What seeds and optimizers share cancels; a seed that one side lacks does not count."""
    microscope = importlib.import_module("microscope")
    key = next(iter(microscope.PHENOMENA))
    of_seed, of_optimizer = {"1": 5.0, "2": -3.0, "3": 40.0}, {"adamw": 0.0, "muon": 7.0}
    of_head = {"ce_untied": 1.0, "ce_untied_initial": 0.25, "ce_tied_fixed": 0.5, "cwt_t05": 2.5}
    values: dict[str, Any] = {
        f"{head}-{optimizer}": {
            seed: {key: of_head[head] + of_seed[seed] + of_optimizer[optimizer]}
            for seed in (("1", "2", "3") if head == "ce_untied" else ("1", "2"))
        }
        for head in of_head
        for optimizer in of_optimizer
    }
    row = microscope.row(key, values)
    assert row["effects"]["bias"].mean == pytest.approx(-0.75)
    assert row["effects"]["bias"].n == 4
    assert row["effects"]["contrast"].mean == pytest.approx(2.0)
    assert row["effects"]["Muon"].mean == pytest.approx(7.0)
    assert row["effects"]["Muon"].n == 9
    assert row["effects"]["no logQ"] is None
    assert row["means"]["ce_untied-adamw"].mean == pytest.approx(1 + 14)
    assert row["means"]["cwt_logq_t05-muon"] is None


def test_models_beyond_chance_are_counted_by_arm() -> None:
    microscope = importlib.import_module("microscope")
    key = next(iter(microscope.NULLS))
    values = {
        "ce_untied-muon": {"1": {key: 0.05}, "2": {key: 0.1}, "3": {}},
        "cwt_t05-muon": {"1": {key: 0.95}},
        "cwt_switch-muon": {"1": {key: 0.05}},
    }
    counts = list(microscope.beyond_chance(key, values))
    assert counts == ["ce_untied-muon 1 of 2", "cwt_t05-muon 0 of 1"]


def test_what_a_switch_does_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    microscope = importlib.import_module("microscope")
    for seed in (1, 2):
        write_run(tmp_path / "final", "headless", seed, name=f"cwt_switch-muon-steps9-seed{seed}")
    write_run(tmp_path / "final", "headless", 1, name="cwt_t05-muon-steps9-seed1")

    def analyze(path: Path, **_: Any) -> SimpleNamespace:
        seed = int(path.name[-1])
        numbers = {part: [0.0, place + seed] for place, part in enumerate(microscope.PARTS)}
        finding = SimpleNamespace(
            name="switch",
            series={"change": SimpleNamespace(places=["norms/norm_f/rest", "anisotropy/norm_f"])},
            values=lambda part: np.array(numbers[part]),
        )
        return SimpleNamespace(findings=[finding])

    monkeypatch.setattr(microscope.headless, "analyze", analyze)
    found = microscope.switches(tmp_path)
    assert found["mean cosine of the last states"]["after"] == {"1": 2.0, "2": 3.0}
    assert len(found) == 1
    line = microscope.table_of_switches(found).splitlines()[-1]
    assert line.startswith("| mean cosine of the last states | 1.5 | 2.5 | 3.5 | +4.5 ± ")
