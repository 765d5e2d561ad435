"""Results are appended, read back as they were, and the last one counts."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from headless.errors import HeadlessError
from headless.files import exclusive
from headless.runs.directory import RunDirectory
from headless.runs.evaluations import (
    Evaluation,
    append_evaluation,
    as_lines,
    latest,
    read_evaluations,
)

RESULT = Evaluation(
    task="blimp:data/ü.jsonl",
    kind="blimp",
    source="ü.jsonl",
    data_sha256="ab" * 32,
    model="a",
    head="calibrated",
    step=320,
    metrics={"accuracy": 0.75},
    errors={"accuracy": 0.01},
    items=300,
    skipped=2,
    truncated=1,
    subsets={"order": {"items": 150, "accuracy": 0.5}},
    settings={"max_length": 128},
    seconds=1.25,
    versions={"torch": "2"},
    time="2026-01-02T03:04:05+00:00",
)


def test_results_are_appended_and_read_back(tmp_path: Path) -> None:
    path = RunDirectory(tmp_path).evaluations
    assert path == tmp_path / "evaluations.jsonl"
    assert read_evaluations(path) == []
    later = replace(RESULT, step=None, metrics={"accuracy": 0.8})
    for result in (RESULT, later):
        append_evaluation(path, result)
    assert read_evaluations(path) == [RESULT, later]
    assert as_lines([RESULT, later]) == path.read_text()


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    infinite = replace(
        RESULT, metrics={"perplexity": math.inf}, subsets={"order": {"accuracy": math.nan}}
    )
    append_evaluation(path, infinite)
    (found,) = read_evaluations(path)
    assert found.metrics == {"perplexity": None}
    assert found.subsets == {"order": {"accuracy": None}}
    assert json.loads(as_lines([infinite]))["metrics"] == {"perplexity": None}


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    append_evaluation(path, RESULT)
    with open(path, "a") as file:
        file.write('{"task": "bli')
    assert read_evaluations(path) == [RESULT]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"format": 2}', "format 2"),
        ('{"format": 1, "task": "x"}', "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(HeadlessError, match=message):
        read_evaluations(path)


def test_the_latest_of_each_task_data_and_head() -> None:
    again = replace(RESULT, metrics={"accuracy": 0.9}, step=640, task="blimp:elsewhere")
    tied, other = replace(RESULT, head="tied"), replace(RESULT, data_sha256="cd" * 32)
    assert latest([RESULT, tied, other, again]) == [again, tied, other]


def test_two_processes_add_their_results_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    added = threading.Thread(target=append_evaluation, args=(path, RESULT))
    with exclusive(path):
        added.start()
        added.join(timeout=0.2)
        assert not path.exists()
    added.join()
    assert read_evaluations(path) == [RESULT]
    assert [p.name for p in tmp_path.iterdir()] == ["evaluations.jsonl"]
