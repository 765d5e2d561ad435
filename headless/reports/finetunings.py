"""Classifiers that `headless finetune` trained: scores on the test text, one table a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.pages.page import Cell, Column, Page
from headless.reports.groups import canonical, differing
from headless.reports.places import RESULTS
from headless.reports.tables import Quantity, Scores, Table, percent
from headless.reports.texts import TEXTS
from headless.runs.directory import RunDirectory
from headless.structured import TEXT, WHOLE, check_entries, damaged, is_number, read_json, read_yaml

# Options of `headless finetune` that are no part of the recipe: names, places, and the seeds.
NOT_THE_RECIPE = ("model", "task", "data", "output", "overwrite", "seeds", "accelerator")
SHARES = {"accuracy", "f1", "macro_f1"}
LOWER = {"rmse"}
SPLITS = {"test": "test", "validation": "validation", "also": "second validation"}
NEEDS = ("task", "model", "reported_split", "metrics", "seeds")
KINDS = {
    **dict.fromkeys(NEEDS[:3], TEXT),
    **dict.fromkeys(("metrics", "seeds", "notes"), (list,)),
    **dict.fromkeys(("splits", "baseline"), (dict,)),
}


@dataclass(frozen=True)
class Finetuning:
    """One directory of `headless finetune`: what it is, and the scores of each seed."""

    path: Path
    results: dict[str, Any]
    options: dict[str, Any]

    @property
    def model(self) -> str:
        return self.results["model"]

    @property
    def place(self) -> str:
        """Where the model was: two checkpoints, or two runs, may share a name."""
        return str(self.options.get("model") or self.model)

    @property
    def recipe(self) -> dict[str, Any]:
        return {k: v for k, v in self.options.items() if k not in NOT_THE_RECIPE}


class Model(Scores):
    """A model that was fine-tuned in one way: the seeds of all directories that did it.

    Scores are on the reported split; of a seed that was run several times the last counts.
    """

    def __init__(self, finetunings: list[Finetuning]) -> None:
        self.finetunings, self.first = finetunings, finetunings[0]
        split = self.first.results["reported_split"]
        records = [record for one in finetunings for record in one.results["seeds"]]
        by_seed = {record["seed"]: record["scores"].get(split, {}) for record in records}
        self.repeats = len(by_seed) < len(records)
        scores = {
            name: [float(v) if is_number(v := own.get(name)) else None for own in by_seed.values()]
            for name in map(str, self.first.results["metrics"])
        }
        super().__init__(self.first.model, list(by_seed), scores)

    def scores_as_json(self, metric: str) -> dict[str, Any]:
        number = self.number(metric)
        return {
            "mean": number.mean if number else None,
            "half_width": number.half_width if number else None,
            "values": {str(seed): value for seed, value in self.by_seed(metric).items()},
        }


class Task:
    """What was fine-tuned on one split of one text."""

    def __init__(self, rows: list[Model]) -> None:
        self.rows, first = rows, rows[0].first.results
        self.name, self.split = first["task"], first["reported_split"]
        self.metrics = [str(name) for name in first["metrics"]]  # the first chose the epoch
        self.examples = (first.get("splits") or {}).get(self.split, {}).get("examples")
        self.baseline = dict(first.get("baseline") or {})  # of the commonest class, or mean label
        self.special = differing([row.first.recipe for row in rows])
        for row in rows:
            places = {other.first.place for other in rows if other.label == row.label}
            values = [f"{key} {texts[rows.index(row)]}" for key, texts in self.special.items()]
            seeds = f"{len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}"
            parts = (row.first.place if len(places) > 1 else "", seeds, *values)
            row.about = ", ".join(filter(None, parts))

    def table(self) -> Table:
        """Scores with intervals over seeds; the baseline last."""
        quantities = []
        for metric in self.metrics:
            name, better = metric.replace("_", " "), "lower" if metric in LOWER else "higher"
            score = Quantity(metric, name, better=better)  # type: ignore[arg-type]
            quantities.append(percent(metric, name) if metric in SHARES else score)
        name = "mean label" if "rmse" in self.baseline else "commonest class"
        scores = [(q, self.baseline.get(q.key)) for q in quantities]
        texts = [q.text(score if is_number(score) else None) for q, score in scores]
        others: list[list[Cell | str]] = [[Cell(name, "no model"), *texts]] if self.baseline else []
        examples = f", {self.examples:,} examples" if is_number(self.examples) else ""
        title = f"{self.name}: {SPLITS.get(self.split, self.split)} scores{examples}"
        heading = Column("fine-tuned model", "how, seeds", "left")
        return Table(heading, quantities, self.rows, title=title, others=others)

    def notes(self) -> list[str]:
        """What a reader of the table must know."""
        finetunings = [one for row in self.rows for one in row.finetunings]
        notes = [f"{f.model}: {note}" for f in finetunings for note in f.results.get("notes") or []]
        if any(len(row.seeds) == 1 for row in self.rows):
            notes.append(TEXTS["single_seed_scores"])
        repeated = "{}: of a seed that was run several times the last counts."
        notes += [repeated.format(row.label) for row in self.rows if row.repeats]
        if self.special:
            notes.append(TEXTS["tuned_in_other_ways"])
        return list(dict.fromkeys(notes))

    def as_json(self) -> dict[str, Any]:
        """Its numbers as plain values."""
        models = [
            {
                "model": row.label,
                "place": row.first.place,
                "recipe": row.first.recipe,
                "directories": [str(one.path) for one in row.finetunings],
                "scores": {metric: row.scores_as_json(metric) for metric in self.metrics},
            }
            for row in self.rows
        ]
        named = {"task": self.name, "split": self.split, "baseline": self.baseline}
        return named | {"models": models}


def read_finetuning(path: Path) -> Finetuning:
    """Read a directory of `headless finetune`."""
    place, config = path / RESULTS, RunDirectory(path).config
    results = check_entries(place, read_json(place, dict), KINDS, NEEDS)
    record = {"seed": WHOLE, "scores": (dict,)}
    records = [check_entries(place, one, record, tuple(record)) for one in results["seeds"]]
    parts = [*(results.get("splits") or {}).values()]
    for part in [*parts, *(scores for one in records for scores in one["scores"].values())]:
        check_entries(place, part, {})
    if not records or not results["metrics"]:
        raise damaged(place, "it has no seed or no metric")
    return Finetuning(path, results, read_yaml(config) if config.is_file() else {})


def task_tables(finetunings: Sequence[Finetuning]) -> list[Task]:
    """One table a task and text, one row a model and way of training, in the order given."""
    tables: dict[str, dict[str, list[Finetuning]]] = {}
    for one in finetunings:
        data = [one.results.get(k) for k in ("task", "reported_split", "splits", "metrics")]
        rows = tables.setdefault(canonical(data), {})
        rows.setdefault(canonical([one.model, one.place, one.recipe]), []).append(one)
    return [Task([Model(ones) for ones in rows.values()]) for rows in tables.values()]


def add_finetunings(page: Page, finetunings: Sequence[Finetuning]) -> None:
    """The section, where there is one."""
    if not finetunings:
        return
    page.heading("Fine-tuned to classify")
    page.paragraph(TEXTS["finetunings"])
    for task in task_tables(finetunings):
        table = task.table()
        page.table(*table.cells(), f"{table.title}.")
        if notes := task.notes():
            page.notes(notes)
