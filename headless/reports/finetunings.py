"""Classifiers that `headless finetune` trained: scores on the test text, one table a task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING, decimals, is_number
from headless.pages.page import Cell, Column, Page
from headless.reports.places import RESULTS
from headless.reports.settings import canonical, text
from headless.reports.statistics import estimate, leader
from headless.runs.directory import RunDirectory

# Options of `headless finetune` that are no part of the recipe: names, places, and the seeds.
NOT_THE_RECIPE = ("model", "task", "data", "output", "overwrite", "seeds", "accelerator")
SHARES = {"accuracy", "f1", "macro_f1"}
LOWER_IS_BETTER = {"rmse"}
SPLITS = {"test": "test", "validation": "validation", "also": "second validation"}


@dataclass(frozen=True)
class Finetuning:
    """One directory of `headless finetune`: what it is, and the scores of each seed."""

    path: Path
    results: dict[str, Any]
    options: dict[str, Any]

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.results["task"])

    @property
    def model(self) -> str:
        """The name of what was fine-tuned."""
        return str(self.results["model"])

    @property
    def place(self) -> str:
        """Where it was: two checkpoints, or two runs, may share a name."""
        return str(self.options.get("model") or self.model)

    @property
    def split(self) -> str:
        """The split whose scores are reported."""
        return str(self.results["reported_split"])

    @property
    def metrics(self) -> list[str]:
        """Names; the first chose the epoch."""
        return [str(name) for name in self.results["metrics"]]

    @property
    def data(self) -> str:
        """What two fine-tunings on the same split of the same text share."""
        return canonical([self.task, self.split, self.results.get("splits"), self.metrics])

    @property
    def recipe(self) -> dict[str, Any]:
        """How it was trained."""
        return {k: v for k, v in self.options.items() if k not in NOT_THE_RECIPE}

    def scores(self, metric: str) -> dict[int, float | None]:
        """A metric on the reported split, by seed."""
        found = {}
        for record in self.results["seeds"]:
            value = record["scores"].get(self.split, {}).get(metric)
            found[record["seed"]] = float(value) if is_number(value) else None
        return found


@dataclass(frozen=True)
class Row:
    """A model that was fine-tuned in one way: the seeds of all directories that did it."""

    finetunings: list[Finetuning]

    @property
    def first(self) -> Finetuning:
        """One that stands for all."""
        return self.finetunings[0]

    def scores(self, metric: str) -> dict[int, float | None]:
        """A metric by seed."""
        return {k: v for one in self.finetunings for k, v in one.scores(metric).items()}


@dataclass(frozen=True)
class TaskTable:
    """What was fine-tuned on one split of one text."""

    rows: list[Row]

    @property
    def first(self) -> Finetuning:
        """One that stands for all in what the data are."""
        return self.rows[0].first

    def named(self, row: Row) -> str:
        """Where the model of a row was, if its name is that of another one too."""
        places = {one.first.place for one in self.rows if one.first.model == row.first.model}
        return row.first.place if len(places) > 1 else ""

    @property
    def baseline(self) -> dict[str, Any]:
        """Scores of the commonest class, or of the mean label."""
        return dict(self.first.results.get("baseline") or {})

    @property
    def title(self) -> str:
        """The task, the split and how much of it."""
        split = self.first.split
        count = (self.first.results.get("splits") or {}).get(split, {}).get("examples")
        examples = f", {count:,} examples" if is_number(count) else ""
        return f"{self.first.task}: {SPLITS.get(split, split)} scores{examples}"

    def special(self, row: Row) -> str:
        """In words, the options of a row that are not the same in all rows."""
        keys = sorted({key for one in self.rows for key in one.first.recipe})
        recipes = [one.first.recipe for one in self.rows]
        different = [k for k in keys if len({canonical(r.get(k)) for r in recipes}) > 1]
        return ", ".join(f"{key} {text(row.first.recipe.get(key))}" for key in different)

    def best(self, metric: str) -> int | None:
        """The place of the row that leads by more than chance over the seeds."""
        scores = [row.scores(metric) for row in self.rows]
        return leader(scores, "lower" if metric in LOWER_IS_BETTER else "higher")


def read_finetuning(path: Path) -> Finetuning:
    """Read a directory of `headless finetune`.

    Raises:
        HeadlessError: a damaged file.
    """
    try:
        results = json.loads((path / RESULTS).read_text(encoding="utf-8"))
        config = RunDirectory(path).config
        options = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise HeadlessError(f"{path} holds a damaged file, leave it out: {error}") from error
    if not (_is_whole(results) and isinstance(options, dict)):
        raise HeadlessError(
            f"{path / RESULTS} is not what headless finetune writes (task, model, seeds, scores): "
            "leave it out"
        )
    return Finetuning(path, results, options)


def _is_whole(results: Any) -> bool:
    """Whether a file holds all that is read of it, each of its kind."""
    if not isinstance(results, dict):
        return False
    expected = {"task": str, "model": str, "reported_split": str, "metrics": list, "seeds": list}
    if not all(isinstance(results.get(key), kind) for key, kind in expected.items()):
        return False
    optional = (results.get("splits"), results.get("baseline"))
    if not all(value is None or isinstance(value, dict) for value in optional):
        return False
    if not all(isinstance(value, dict) for value in (results.get("splits") or {}).values()):
        return False
    if not isinstance(results.get("notes") or [], list):
        return False
    return bool(results["seeds"] and results["metrics"]) and all(
        isinstance(record, dict)
        and isinstance(record.get("seed"), int)
        and isinstance(record.get("scores"), dict)
        and all(isinstance(scores, dict) for scores in record["scores"].values())
        for record in results["seeds"]
    )


def task_tables(finetunings: Sequence[Finetuning]) -> list[TaskTable]:
    """One table a task and text, one row a model and way of training; in the order in which they
    come."""
    tables: dict[str, dict[str, Row]] = {}
    for one in finetunings:
        rows = tables.setdefault(one.data, {})
        key = canonical([one.model, one.place, one.recipe])
        rows.setdefault(key, Row([])).finetunings.append(one)
    return [TaskTable(list(rows.values())) for rows in tables.values()]


def table_cells(table: TaskTable) -> tuple[list[Column], list[list[Cell]]]:
    """A task's table: scores with intervals over seeds, and the baseline last."""
    metrics = table.first.metrics
    columns = [Column("fine-tuned model", "how, seeds", "left")]
    columns += [Column(name.replace("_", " "), "%" if name in SHARES else "") for name in metrics]
    best = {metric: table.best(metric) for metric in metrics}
    rows = []
    for place, row in enumerate(table.rows):
        count = len(row.scores(metrics[0]))
        about = [table.named(row), f"{count} seed{'s' * (count > 1)}", table.special(row)]
        cells = [Cell(row.first.model, ", ".join(filter(None, about)))]
        for metric in metrics:
            found = estimate(row.scores(metric).values())
            half = found.half_width if found else None
            cells.append(
                Cell(
                    _number(metric, found.mean if found else None),
                    f"± {_number(metric, half)}" if half is not None else "",
                    strong=best[metric] == place,
                )
            )
        rows.append(cells)
    if table.baseline:
        name = "mean label" if "rmse" in table.baseline else "commonest class"
        known = [_number(metric, table.baseline.get(metric)) for metric in metrics]
        rows.append([Cell(name, "no model"), *map(Cell, known)])
    return columns, rows


def _number(metric: str, value: Any) -> str:
    if not is_number(value):
        return MISSING
    return decimals(100 * value, 1) if metric in SHARES else decimals(value, 3)


def add_finetunings(page: Page, finetunings: Sequence[Finetuning]) -> None:
    """The section, where there is one."""
    if not finetunings:
        return
    page.heading("Fine-tuned to classify")
    page.paragraph(
        "What `headless finetune` found: each model was trained on the labelled text with every "
        "seed, the epoch was chosen on validation. ± is the 95 % interval of the mean over seeds. "
        "Bold: better than every other by more than chance over the seeds."
    )
    for table in task_tables(finetunings):
        columns, rows = table_cells(table)
        page.table(columns, rows, f"{table.title}.")
        if notes := _notes(table):
            page.notes(notes)


def _notes(table: TaskTable) -> list[str]:
    notes = [
        f"{one.model}: {words}"
        for row in table.rows
        for one in row.finetunings
        for words in one.results.get("notes") or []
    ]
    if any(len(row.scores(table.first.metrics[0])) == 1 for row in table.rows):
        notes.append("A single seed has no interval: another seed can change the order.")
    for row in table.rows:
        seeds = [record["seed"] for one in row.finetunings for record in one.results["seeds"]]
        if len(set(seeds)) < len(seeds):
            notes.append(
                f"{row.first.model}: of a seed that was run several times the last counts."
            )
    if any(table.special(row) for row in table.rows):
        notes.append("The models were not all fine-tuned in the same way: see below their names.")
    return list(dict.fromkeys(notes))


def as_json(finetunings: Sequence[Finetuning]) -> list[dict[str, Any]]:
    """The section's numbers."""
    return [
        {
            "task": table.first.task,
            "split": table.first.split,
            "baseline": table.baseline,
            "models": [_row_json(row, table.first.metrics) for row in table.rows],
        }
        for table in task_tables(finetunings)
    ]


def _row_json(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    scores = {}
    for metric in metrics:
        values: Mapping[int, float | None] = row.scores(metric)
        found = estimate(values.values())
        scores[metric] = {
            "mean": found.mean if found else None,
            "half_width": found.half_width if found else None,
            "values": {str(seed): value for seed, value in values.items()},
        }
    return {
        "model": row.first.model,
        "place": row.first.place,
        "recipe": row.first.recipe,
        "directories": [str(one.path) for one in row.finetunings],
        "scores": scores,
    }
