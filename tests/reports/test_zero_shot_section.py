"""The zero-shot section: a table a task, a row a recipe and head, means over seeds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import edit_json, write_run, write_runs

from headless.errors import HeadlessError
from headless.reports.compare import compare
from headless.reports.evaluations import task_tables
from headless.reports.groups import read_groups
from headless.reports.statistics import estimate
from headless.runs.evaluations import Evaluation, append_evaluation


def result(accuracy: float, **changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "task": "lambada:words.jsonl",
        "kind": "lambada",
        "source": "words.jsonl",
        "data_sha256": "ab" * 32,
        "model": "a",
        "head": "calibrated",
        "step": 400,
        "metrics": {"accuracy": accuracy, "perplexity": 100 * (1 - accuracy)},
        "errors": {"accuracy": 0.01, "perplexity": 3.0},
        "items": 300,
    }
    return Evaluation(**(values | changes))


def add(run: Path, *results: Evaluation) -> None:
    for one in results:
        append_evaluation(run / "evaluations.jsonl", one)


def texts(runs: list[Path]) -> list[list[list[str]]]:
    """The cells of every table: text and detail."""
    return [
        [[f"{cell.text} {cell.detail}".strip() for cell in row] for row in task.table().cells()[1]]
        for task in task_tables(read_groups(runs))
    ]


def strong(runs: list[Path], fair: bool = True) -> list[list[bool]]:
    (task,) = task_tables(read_groups(runs))
    return [[cell.strong for cell in row[1:]] for row in task.table(fair=fair).cells()[1]]


def test_means_and_intervals_over_seeds(tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    values = {run.name: 0.1 + 0.02 * i for i, run in enumerate(runs)}
    for run in runs:
        add(run, result(0.9), result(values[run.name]))  # the later one counts
    ((vanilla, headless),) = texts(runs)
    of_vanilla = [v for name, v in values.items() if name.startswith("cross")]
    found = estimate(of_vanilla)
    assert found is not None
    assert found.half_width is not None
    assert vanilla[0].startswith("cross-entropy (untied) calibrated head, 3 runs")
    assert vanilla[1] == f"{100 * found.mean:.1f} ± {100 * found.half_width:.1f}"
    assert headless[1].startswith("18.0 ± ")
    compare(runs, output=tmp_path / "out")
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    (entry,) = numbers["groups"][0]["evaluations"]
    assert entry["items"] == 300
    assert entry["metrics"]["accuracy"]["values"] == pytest.approx(of_vanilla)
    assert entry["metrics"]["accuracy"]["half_width"] == pytest.approx(found.half_width)
    assert entry["metrics"]["accuracy"]["errors"] == [0.01] * 3
    html = (tmp_path / "out/report.html").read_text()
    assert "Zero-shot" in html
    assert "lambada: words.jsonl, 300 items." in html


def test_one_run_shows_the_error_over_items_and_each_head_is_a_row(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    add(run, result(0.25), result(0.125, head="tied"), result(0.5, step=200, head="other"))
    ((calibrated, tied, other),) = texts([run])
    assert calibrated[1:] == ["25.0 s.e. 1.0", "75.0 s.e. 3.0"]
    assert tied[0] == "headless (CWT) tied head, 1 run"
    assert other[0] == "headless (CWT) other head, 1 run, step 200"


def test_other_items_are_another_table_and_runs_without_a_result_are_left_out(
    tmp_path: Path,
) -> None:
    runs = write_runs(tmp_path, seeds=(1,))
    add(runs[0], result(0.25), result(0.5, data_sha256="cd" * 32, items=7))
    tables = task_tables(read_groups(runs))
    assert [task.table().title for task in tables] == [
        "lambada: words.jsonl, 300 items",
        "lambada: words.jsonl, 7 items",
    ]
    assert [len(table.rows) for table in tables] == [1, 1]


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=(1,))
    settings = {"max_length": 128, "stride": 128}
    add(runs[0], result(0.25, settings=settings))
    add(runs[1], result(0.25, settings=settings | {"stride": 64}))
    ((vanilla, headless),) = texts(runs)
    assert vanilla[0].endswith("1 run, stride 128")
    assert headless[0].endswith("1 run, stride 64")


def test_best_is_what_leads_by_two_standard_errors(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=(1,))
    add(runs[0], result(0.25))
    add(runs[1], result(0.28))  # 2.1 standard errors of the difference; perplexity: 0.7
    assert strong(runs) == [[False, False], [True, False]]
    assert strong(runs, fair=False) == [[False, False], [False, False]]
    add(runs[0], result(0.26))
    assert strong(runs) == [[False, False], [False, False]]
    add(runs[0], result(0.05))
    assert strong(runs) == [[False, False], [True, True]]


def test_token_scores_of_a_text_need_one_tokenizer(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=(1,))
    names = ("nll", "perplexity", "bits_per_byte", "word_perplexity")
    for run, value in zip(runs, (4.0, 3.0), strict=True):
        errors = dict.fromkeys(names, 0.1)
        add(run, result(0, kind="text", metrics=dict.fromkeys(names, value), errors=errors))
    assert strong(runs) == [[False] * 4, [True] * 4]
    edit_json(runs[1] / "summary.json", tokenizer_sha256="cd" * 32)
    assert strong(runs)[1] == [False, False, True, True]
    # Bits per byte is no fair number where a tokenizer does not give the text back.
    edit_json(runs[1] / "summary.json", inexact_share=0.2)
    assert strong(runs)[1] == [False, False, False, True]


def test_what_a_tokenizer_loses_of_this_text_counts(tmp_path: Path) -> None:
    """Not what it loses of the one that was trained on."""
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    metrics, errors = {"bits_per_byte": 2.0}, {"bits_per_byte": 0.01}
    for run, share in zip(runs, (0.0, 0.25), strict=True):
        values = {"metrics": metrics, "errors": errors, "settings": {"inexact_share": share}}
        add(run, result(0, kind="text", **values))
        metrics = {"bits_per_byte": 1.0}
    edit_json(runs[1] / "summary.json", tokenizer_sha256="cd" * 32)
    assert not any(map(any, strong(runs)))
    (task,) = task_tables(read_groups(runs))
    html = compare(runs, output=tmp_path / "out").report.read_text()
    assert "Share of the bytes in documents that it changes: headless (CWT): 25 %" in html
    for run in runs:  # a text that both give back, of all that they were trained on
        edit_json(run / "summary.json", inexact_share=0.5)
        share = {"settings": {"inexact_share": 0.0}}
        add(run, result(0, kind="text", metrics=metrics, errors=errors, **share))
        metrics = {"bits_per_byte": 0.5}
    (task,) = task_tables(read_groups(runs))
    assert "bits/byte" in [column.name for column in task.table().cells()[0]]
    assert strong(runs)[1][2]


def test_a_lead_of_one_seed_without_a_standard_error_is_no_lead(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=(1,))
    for run, value in zip(runs, (0.2, 0.9), strict=True):
        add(run, result(value, errors={}))
    assert strong(runs) == [[False, False], [False, False]]


def test_subsets_are_columns(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    subsets = {"order": {"items": 10, "accuracy": 0.5, "accuracy_error": 0.1}}
    pairs = result(0.75, kind="blimp", metrics={"accuracy": 0.75}, subsets=subsets)
    add(run, pairs)
    assert texts([run])[0][0][1:] == ["75.0 s.e. 1.0", "50.0 s.e. 10.0"]
    many = {f"s{i}": subsets["order"] for i in range(12)}
    add(run, replace(pairs, subsets=many))
    assert len(texts([run])[0][0]) == 2
    compare([run], output=tmp_path / "out")
    numbers = json.loads((tmp_path / "out/compare.json").read_text())
    assert "subset/s11" in numbers["groups"][0]["evaluations"][0]["metrics"]


def test_a_task_of_the_harness_shows_its_own_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    add(run, result(0, kind="harness", metrics={"accuracy": 0.5, "mcc": 0.25}, errors={}))
    assert texts([run])[0][0][1:] == ["50.0", "0.2500"]


def test_no_result_no_section_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path, "headless")
    compare([run], output=tmp_path / "out")
    assert "Zero-shot" not in (tmp_path / "out/report.html").read_text()
    assert json.loads((tmp_path / "out/compare.json").read_text())["groups"][0]["evaluations"] == []
    (run / "evaluations.jsonl").write_text("no\n")
    with pytest.raises(HeadlessError, match=r"evaluations\.jsonl, line 1 is damaged"):
        compare([run], output=tmp_path / "out", overwrite=True)
