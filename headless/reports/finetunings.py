"""Classifiers that `headless finetune` trained: scores on the test text, one table a task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headless.pages.page import Cell, Column, Page
from headless.reports.places import RESULTS
from headless.reports.settings import canonical, text
from headless.reports.tables import Quantity, Row, Table, percent
from headless.runs.directory import RunDirectory
from headless.structured import TEXT, WHOLE, check_entries, damaged, is_number, read_json, read_yaml

# Options of `headless finetune` that are no part of the recipe: names, places, and the seeds.
NOT_THE_RECIPE = ("model", "task", "data", "output", "overwrite", "seeds", "accelerator")
SHARES = {"accuracy", "f1", "macro_f1"}
LOWER_IS_BETTER = {"rmse"}
SPLITS = {"test": "test", "validation": "validation", "also": "second validation"}
KINDS = {
    **dict.fromkeys(("task", "model", "reported_split"), TEXT),
    **dict.fromkeys(("metrics", "seeds", "notes"), (list,)),
    **dict.fromkeys(("splits", "baseline"), (dict,)),
}
NEEDS = ("task", "model", "reported_split", "metrics", "seeds")


@dataclass(frozen=True)
class Finetuning:
    """One directory of `headless finetune`: what it is, and the scores of each seed."""

    path: Path
    results: dict[str, Any]
    options: dict[str, Any]

    @property
    def model(self) -> str:
        """The name of what was fine-tuned."""
        return str(self.results["model"])

    @property
    def place(self) -> str:
        """Where it was: two checkpoints, or two runs, may share a name."""
        return str(self.options.get("model") or self.model)

    @property
    def metrics(self) -> list[str]:
        """Names; the first chose the epoch."""
        return [str(name) for name in self.results["metrics"]]

    @property
    def data(self) -> str:
        """What two fine-tunings on the same split of the same text share."""
        names = ("task", "reported_split", "splits")
        return canonical([*(self.results.get(name) for name in names), self.metrics])

    @property
    def recipe(self) -> dict[str, Any]:
        """How it was trained."""
        return {k: v for k, v in self.options.items() if k not in NOT_THE_RECIPE}

    @property
    def seeds(self) -> list[int]:
        """Of its trainings."""
        return [record["seed"] for record in self.results["seeds"]]

    def scores(self, metric: str) -> dict[int, float | None]:
        """A metric on the reported split, by seed."""
        split = self.results["reported_split"]
        scores = [r["scores"].get(split, {}).get(metric) for r in self.results["seeds"]]
        known = [float(score) if is_number(score) else None for score in scores]
        return dict(zip(self.seeds, known, strict=True))


@dataclass
class Model(Row):
    """A model that was fine-tuned in one way: the seeds of all directories that did it."""

    finetunings: list[Finetuning]
    about: str = ""

    @property
    def first(self) -> Finetuning:
        """One that stands for all."""
        return self.finetunings[0]

    @property
    def label(self) -> str:  # type: ignore[override]
        """The model's name."""
        return self.first.model

    def by_seed(self, key: str) -> dict[int, float | None]:
        """A metric by seed; of a seed that was run several times the last counts."""
        return {k: v for one in self.finetunings for k, v in one.scores(key).items()}


@dataclass
class Task:
    """What was fine-tuned on one split of one text."""

    rows: list[Model] = field(default_factory=list)

    @property
    def first(self) -> Finetuning:
        """One that stands for all in what the data are."""
        return self.rows[0].first

    @property
    def baseline(self) -> dict[str, Any]:
        """Scores of the commonest class, or of the mean label."""
        return dict(self.first.results.get("baseline") or {})

    def table(self) -> Table:
        """Scores with intervals over seeds, and the baseline last."""
        quantities = [_quantity(metric) for metric in self.first.metrics]
        name = "mean label" if "rmse" in self.baseline else "commonest class"
        scores = [(q, self.baseline.get(q.key)) for q in quantities]
        known = [q.text(score if is_number(score) else None) for q, score in scores]
        others: list[list[Cell | str]] = [[Cell(name, "no model"), *known]] if self.baseline else []
        split = self.first.results["reported_split"]
        count = (self.first.results.get("splits") or {}).get(split, {}).get("examples")
        examples = f", {count:,} examples" if is_number(count) else ""
        title = f"{self.first.results['task']}: {SPLITS.get(split, split)} scores{examples}"
        heading = Column("fine-tuned model", "how, seeds", "left")
        return Table(heading, quantities, self.rows, title=title, others=others)

    def describe(self, row: Model) -> str:
        """Below a model's name: its place, where another one is called the same; seeds; how."""
        places = {one.first.place for one in self.rows if one.label == row.label}
        count = len(row.by_seed(self.first.metrics[0]))
        seeds = f"{count} seed{'s' * (count > 1)}"
        parts = (row.first.place if len(places) > 1 else "", seeds, self.special(row))
        return ", ".join(filter(None, parts))

    def special(self, row: Model) -> str:
        """In words, the options of a row that are not the same in all rows."""
        recipes = [one.first.recipe for one in self.rows]
        keys = sorted({key for recipe in recipes for key in recipe})
        different = [k for k in keys if len({canonical(r.get(k)) for r in recipes}) > 1]
        return ", ".join(f"{key} {text(row.first.recipe.get(key))}" for key in different)

    def notes(self) -> list[str]:
        """What a reader of the table must know."""
        notes = [
            f"{one.model}: {words}"
            for row in self.rows
            for one in row.finetunings
            for words in one.results.get("notes") or []
        ]
        if any(len(row.by_seed(self.first.metrics[0])) == 1 for row in self.rows):
            notes.append("A single seed has no interval: another seed can change the order.")
        for row in self.rows:
            seeds = [seed for one in row.finetunings for seed in one.seeds]
            if len(set(seeds)) < len(seeds):
                notes.append(f"{row.label}: of a seed that was run several times the last counts.")
        if any(self.special(row) for row in self.rows):
            notes.append(
                "The models were not all fine-tuned in the same way: see below their names."
            )
        return list(dict.fromkeys(notes))

    def as_json(self) -> dict[str, Any]:
        """Its numbers as plain values."""
        return {
            "task": self.first.results["task"],
            "split": self.first.results["reported_split"],
            "baseline": self.baseline,
            "models": [
                {
                    "model": row.label,
                    "place": row.first.place,
                    "recipe": row.first.recipe,
                    "directories": [str(one.path) for one in row.finetunings],
                    "scores": {metric: _scores(row, metric) for metric in self.first.metrics},
                }
                for row in self.rows
            ],
        }


def _quantity(metric: str) -> Quantity:
    name = metric.replace("_", " ")
    if metric in SHARES:
        return percent(metric, name)
    return Quantity(metric, name, better="lower" if metric in LOWER_IS_BETTER else "higher")


def _scores(row: Model, metric: str) -> dict[str, Any]:
    number = row.number(metric)
    return {
        "mean": number.mean if number else None,
        "half_width": number.half_width if number else None,
        "values": {str(seed): value for seed, value in row.by_seed(metric).items()},
    }


def read_finetuning(path: Path) -> Finetuning:
    """Read a directory of `headless finetune`.

    Raises:
        HeadlessError: a damaged file.
    """
    place, config = path / RESULTS, RunDirectory(path).config
    results = check_entries(place, read_json(place, dict), KINDS, NEEDS)
    records = [
        check_entries(place, record, {"seed": WHOLE, "scores": (dict,)}, ("seed", "scores"))
        for record in results["seeds"]
    ]
    parts = [*(results.get("splits") or {}).values()]
    for part in [*parts, *(scores for record in records for scores in record["scores"].values())]:
        check_entries(place, part, {})
    if not records or not results["metrics"]:
        raise damaged(place, "it has no seed or no metric")
    return Finetuning(path, results, read_yaml(config) if config.is_file() else {})


def task_tables(finetunings: Sequence[Finetuning]) -> list[Task]:
    """One table a task and text, one row a model and way of training; in the order in which they
    come."""
    tables: dict[str, dict[str, Model]] = {}
    for one in finetunings:
        rows = tables.setdefault(one.data, {})
        key = canonical([one.model, one.place, one.recipe])
        rows.setdefault(key, Model([])).finetunings.append(one)
    tasks = [Task(list(rows.values())) for rows in tables.values()]
    for task in tasks:
        for row in task.rows:
            row.about = task.describe(row)
    return tasks


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
    for task in task_tables(finetunings):
        table = task.table()
        page.table(*table.cells(), f"{table.title}.")
        if notes := task.notes():
            page.notes(notes)
