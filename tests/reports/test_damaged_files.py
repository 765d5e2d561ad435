"""Whatever a file of a run holds, a comparison is made or refused in one line."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_runs import write_run
from test_finetunings import write_finetuning
from test_inside import analysis
from test_zero_shot_section import result

from headless.errors import HeadlessError
from headless.reports.compare import compare

pytestmark = pytest.mark.usefixtures("without_figures")
JUNK: tuple[Any, ...] = (None, [], [1], 2.5, {"a": 1}, {}, "x", -1, 10**400, True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with every file that a comparison reads."""
    path = write_run(tmp_path, "headless", steps=50)
    small = asdict(result(0.5, subsets={"easy": {"items": 3, "accuracy": 0.5}}))
    (path / "evaluations.jsonl").write_text(json.dumps(small) + "\n")
    (path / "analysis").mkdir()
    (path / "analysis/analysis.json").write_text(json.dumps(analysis(depth=1, width=3)))
    return path


@pytest.fixture(autouse=True)
def _without_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def mutants(value: Any, levels: int, junk: Iterator[Any] | None = None) -> Iterator[Any]:
    """A value with one of its entries, down to some levels, replaced by junk or taken away.

    All junk in place of the whole, three pieces in turn in place of an entry.
    """
    yield from JUNK if junk is None else islice(junk, 3)
    junk = junk or cycle(JUNK)
    if not levels or not isinstance(value, dict | list) or not value:
        return
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    for key, entry in [item for item in items if item[0] not in ("arrays",)][:20]:
        if isinstance(value, dict):
            yield {k: v for k, v in value.items() if k != key}
            yield from (value | {key: mutant} for mutant in mutants(entry, levels - 1, junk))
        else:
            yield from (
                [*value[:key], m, *value[key + 1 :]] for m in mutants(entry, levels - 1, junk)
            )


def tried(paths: list[Path], output: Path) -> bool:
    """Whether it was compared; a refusal is one line that says where."""
    complaint = ""
    try:
        compare(paths, output=output, overwrite=True)
    except HeadlessError as error:
        complaint = str(error)
        if "\n" in complaint or not any(str(path) in complaint for path in paths):
            raise
    return not complaint


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("summary.json", 1),
        ("environment.json", 2),
        ("config.yaml", 3),
        ("analysis/analysis.json", 3),
        ("metrics.jsonl", 1),
        ("samples.jsonl", 1),
        ("evaluations.jsonl", 2),
    ],
)
def test_junk_in_a_file_of_a_run(run: Path, tmp_path: Path, name: str, levels: int) -> None:
    file = run / name
    text = file.read_text()
    if name.endswith("l"):
        *before, last = text.splitlines() if not name.endswith("yaml") else [text]
        value = yaml.safe_load(last)
        lines = "\n".join(before[-1:]) + "\n" * bool(before)
    else:
        value, lines = json.loads(text), ""
    compared = []
    for mutant in mutants(value, levels):
        dump = yaml.safe_dump if name.endswith("yaml") else json.dumps
        file.write_text(lines + dump(mutant) + "\n")
        compared.append(tried([run], tmp_path / "out"))
    assert 1 < sum(compared) < len(compared)


def test_junk_in_the_results_of_a_fine_tuning(tmp_path: Path) -> None:
    path = write_finetuning(tmp_path / "tuned")
    value = json.loads((path / "results.json").read_text())
    for mutant in mutants(value, 3):
        (path / "results.json").write_text(json.dumps(mutant))
        tried([path], tmp_path / "out")


@pytest.mark.parametrize("name", ["summary.json", "analysis/analysis.json", "config.yaml"])
def test_deep_nesting_and_bytes_that_are_no_text(run: Path, tmp_path: Path, name: str) -> None:
    for content in (b"[" * 3_000, b"\xff\xfe\x00"):
        (run / name).write_bytes(content)
        assert not tried([run], tmp_path / "out")
