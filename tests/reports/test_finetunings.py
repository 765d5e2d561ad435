"""Classifiers in a comparison: test scores with intervals, one table a task."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_runs import write_run

from headless.errors import HeadlessError
from headless.pages.page import Cell
from headless.reports.compare import compare
from headless.reports.finetunings import read_finetuning, task_tables

pytestmark = pytest.mark.usefixtures("without_figures")
SPLITS = {name: {"examples": 40, "classes": {"bad": 21, "good": 19}} for name in ("train", "test")}


def write_finetuning(
    path: Path,
    model: str = "headless-1",
    scores: tuple[float, ...] = (0.7, 0.72, 0.71),
    *,
    seeds: tuple[int, ...] = (1, 2, 3),
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A directory as `headless finetune` writes it, but for the model."""
    path.mkdir(parents=True)
    config = {"model": f"runs/{model}", "task": "movies.jsonl", "output": str(path)}
    config |= {"seeds": list(seeds), "lr": 1e-3, "epochs": 3, "accelerator": "cpu"}
    (path / "config.yaml").write_text(yaml.safe_dump(config | (options or {})))
    records = [
        {"seed": s, "best_epoch": 1, "scores": {"test": {"accuracy": v, "matthews": 2 * v - 1}}}
        for s, v in zip(seeds, scores, strict=True)
    ]
    results = {
        "model": model,
        "task": "movies",
        "mode": "full",
        "splits": SPLITS,
        "metrics": ["accuracy", "matthews"],
        "reported_split": "test",
        "notes": [],
        "baseline": {"accuracy": 0.525},
        "seeds": records,
    }
    (path / "results.json").write_text(json.dumps(results | changes))
    return path


def cells(paths: list[Path]) -> list[list[tuple[str, str, bool]]]:
    (task,) = task_tables([read_finetuning(path) for path in paths])
    rows = [[c if isinstance(c, Cell) else Cell(c) for c in r] for r in task.table().cells()[1]]
    return [[(cell.text, cell.detail, cell.strong) for cell in row] for row in rows]


def test_scores_with_intervals_beside_the_baseline(tmp_path: Path) -> None:
    scores = (0.61, 0.6, 0.62)
    good = write_finetuning(tmp_path / "a")
    poor = write_finetuning(tmp_path / "b", "vanilla-1", scores)
    rows = cells([poor, good])
    half = 4.30265 * statistics.stdev(scores) / 3**0.5
    assert rows[0] == [
        ("vanilla-1", "3 seeds", False),
        ("61.0", f"± {100 * half:.1f}", False),
        ("0.220", f"± {2 * half:.3f}", False),
    ]
    assert [row[0][0] for row in rows] == ["vanilla-1", "headless-1", "commonest class"]
    assert rows[1][1][2]  # by 0.1 with every seed
    assert [cell[0] for cell in rows[2]] == ["commonest class", "52.5", "–"]


def test_one_seed_or_a_wild_one_is_not_the_best(tmp_path: Path) -> None:
    single = [
        write_finetuning(tmp_path / f"s{i}", f"m{i}", (v,), seeds=(1,), notes=["cut"] * i)
        for i, v in enumerate((0.6, 0.9))
    ]
    assert not any(cell[2] for row in cells(single) for cell in row)
    html = compare(single, output=tmp_path / "out").report.read_text()
    assert "m1: cut" in html
    assert "A single seed has no interval" in html
    wild = write_finetuning(tmp_path / "w", "wild", (0.99, 0.6, 0.99))
    steady = write_finetuning(tmp_path / "t", "steady", (0.6, 0.6, 0.6))
    assert not any(cell[2] for row in cells([wild, steady]) for cell in row)


def test_seeds_of_several_directories_are_one_row(tmp_path: Path) -> None:
    one = write_finetuning(tmp_path / "a", scores=(0.7,), seeds=(1,))
    other = write_finetuning(tmp_path / "b", scores=(0.8,), seeds=(2,))
    slow = write_finetuning(tmp_path / "c", scores=(0.6,), seeds=(1,), options={"lr": 1e-5})
    assert [row[0][:2] for row in cells([one, other, slow])] == [
        ("headless-1", "2 seeds, lr 0.001"),
        ("headless-1", "1 seed, lr 1e-05"),
        ("commonest class", "no model"),
    ]


def test_models_that_share_a_name_are_not_one_model(tmp_path: Path) -> None:
    """Two checkpoints of a run, or runs of two roots, with the same seeds."""
    paths = [
        write_finetuning(tmp_path / str(i), scores=(v,), seeds=(1,), options={"model": place})
        for i, (place, v) in enumerate((("old/headless-1", 0.7), ("new/headless-1", 0.8)))
    ]
    assert [row[0][:2] + row[1][:1] for row in cells(paths)[:2]] == [
        ("headless-1", "old/headless-1, 1 seed", "70.0"),
        ("headless-1", "new/headless-1, 1 seed", "80.0"),
    ]


def test_a_seed_that_was_run_twice_is_said(tmp_path: Path) -> None:
    paths = [write_finetuning(tmp_path / name, scores=(0.7,), seeds=(1,)) for name in ("a", "b")]
    html = compare(paths, output=tmp_path / "out").report.read_text()
    assert "headless-1: of a seed that was run several times the last counts." in html


def test_other_texts_are_other_tables(tmp_path: Path) -> None:
    splits = {"test": {"examples": 41}}
    paths = [
        write_finetuning(tmp_path / "a"),
        write_finetuning(tmp_path / "b", splits=splits),
        write_finetuning(tmp_path / "c", task="reviews"),
    ]
    titles = [task.table().title for task in task_tables([read_finetuning(path) for path in paths])]
    assert titles == [
        "movies: test scores, 40 examples",
        "movies: test scores, 41 examples",
        "reviews: test scores, 40 examples",
    ]


def test_they_are_no_runs_without_an_objective(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    paths = [write_finetuning(tmp_path / name, name) for name in ("a", "b")]
    for named in ([run, *paths], paths):
        comparison = compare(named, output=tmp_path / "out", overwrite=True)
        html = (tmp_path / "out/report.html").read_text()
        assert "unknown objective" not in html
        assert not any("Not finished" in warning for warning in comparison.warnings)
        assert "Fine-tuned to classify" in html
        numbers = json.loads((tmp_path / "out/compare.json").read_text())
        (task,) = numbers["classifiers"]
        assert task["models"][0]["scores"]["accuracy"]["values"] == {"1": 0.7, "2": 0.72, "3": 0.71}
        assert task["baseline"] == {"accuracy": 0.525}
    assert numbers["groups"] == []


def test_one_that_did_not_finish_is_said(tmp_path: Path) -> None:
    path = write_finetuning(tmp_path / "a")
    (path / "results.json").unlink()
    with pytest.raises(HeadlessError, match="fine-tuning that has no results"):
        compare([path], output=tmp_path / "out")
