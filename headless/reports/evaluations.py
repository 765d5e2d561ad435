"""Zero-shot results of the runs: one table a task, one row a recipe group and LM head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headless.pages.page import Column, Page
from headless.reports.fairness import about_lost_text, same_budget, same_tokenizer
from headless.reports.groups import Group
from headless.reports.tables import Quantity, Scores, Table, percent
from headless.reports.texts import TEXTS
from headless.runs.evaluations import Evaluation, latest
from headless.structured import is_number

SETTINGS = ("max_length", "stride", "num_fewshot")  # what else a score depends on
MAX_SUBSETS = 8  # columns; compare.json has all
ACCURACY = percent("accuracy", "accuracy")
QUANTITIES = {
    "text": (
        Quantity("nll", "nll", "nats/token", "", 3, "lower"),
        Quantity("perplexity", "perplexity", "", "", 2, "lower"),
        Quantity("bits_per_byte", "bits/byte", "", "", 3, "lower"),
        Quantity("word_perplexity", "perplexity", "a word", "", "compact", "lower"),
    ),
    "lambada": (ACCURACY, Quantity("perplexity", "perplexity", "a last word", "", 1, "lower")),
    "blimp": (ACCURACY,),
    "choice": (
        ACCURACY,
        percent("accuracy_norm", "accuracy", "%, per character"),
        percent("accuracy_bytes", "accuracy", "%, per byte"),
    ),
}
QUANTITIES["catalogue"] = tuple(
    percent(f"{name}@{k}", f"{name.upper()}@{k}") for k in (10, 50) for name in ("hr", "ndcg")
)
UNITS = {"nll", "perplexity", "bits_per_byte"}  # of a text: what they count is the tokenizer's


class Result(Scores):
    """A group under one LM head: the last result of each of its runs, None where it has none.

    "subset/name" is the accuracy of a subset.
    """

    def __init__(self, group: Group, head: str, results: Sequence[Evaluation | None]) -> None:
        self.group, self.head, self.results = group, head, results
        self.known = [result for result in results if result is not None]
        both = [_numbers(result) if result else ({}, {}) for result in results]
        names = dict.fromkeys(name for values, _ in both for name in values)
        scores = {name: [values.get(name) for values, _ in both] for name in names}
        errors = {name: [known.get(name) for _, known in both] for name in names}
        super().__init__(group.label, group.seeds, scores, errors, index=group.index)

    @property
    def inexact_share(self) -> float:
        """Of this text, or (results of earlier versions) of the one that was trained on."""
        shares = [result.settings.get("inexact_share") for result in self.known]
        return max(s if is_number(s) else self.group.inexact_share for s in shares)


def _numbers(result: Evaluation) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every metric, and what is known of their standard errors."""
    both: tuple[dict[str, Any], ...] = ({**result.metrics}, {**result.errors})
    for name, subset in result.subsets.items():
        for side, metric in zip(both, ("accuracy", "accuracy_error"), strict=True):
            side[f"subset/{name}"] = subset.get(metric) if isinstance(subset, dict) else None
    values, errors = ({k: v for k, v in side.items() if is_number(v)} for side in both)
    return values, errors


@dataclass
class Task:
    """A task that some groups were evaluated on: the same kind, the same items."""

    kind: str
    data_sha256: str
    rows: list[Result]

    @property
    def first(self) -> Evaluation:
        """A result that stands for all in what the data are."""
        return self.rows[0].known[0]

    @property
    def inexact_shares(self) -> dict[str, float]:
        """Of this text, by the groups' labels: what their tokenizers do not give back of it."""
        return {row.label: row.inexact_share for row in self.rows}

    def table(self, *, fair: bool = True) -> Table:
        """One row a group and head; without `fair` none of them leads."""
        lossy = any(self.inexact_shares.values())
        one_unit = same_tokenizer([row.group for row in self.rows])

        def can_lead(quantity: Quantity) -> bool:
            if self.kind == "text" and quantity.key in UNITS and not one_unit:
                return fair and quantity.key == "bits_per_byte" and not lossy
            return fair

        quantities = QUANTITIES.get(self.kind) or [
            ACCURACY if name == "accuracy" else Quantity(name, name, digits=4)
            for name in self.first.metrics
        ]
        columns = [*quantities]
        if len(self.first.subsets) <= MAX_SUBSETS:
            columns += [percent(f"subset/{n}", n, group="by subset") for n in self.first.subsets]
        noun = "document" if self.kind == "text" else "item"
        items = f"{self.first.items:,} {noun}{'s' * (self.first.items != 1)}"
        title = f"{self.kind}: {self.first.source}, {items}"
        for row in self.rows:
            row.about = self._describe(row)
        heading = Column("objective", "head, runs", "left")
        return Table(heading, columns, self.rows, can_lead, title=title)

    def _describe(self, row: Result) -> str:
        """Head, runs, and what is not the same in all rows: a step before the last, settings."""
        pairs = zip(row.group.runs, row.results, strict=True)
        steps = {one.step: run.value("step") for run, one in pairs if one and one.step is not None}
        parts = [f"{row.head} head", f"{len(row.known)} run{'s' * (len(row.known) > 1)}"]
        parts += [f"step {step:,}" for step, last in sorted(steps.items()) if step != last]
        for name in SETTINGS:
            known = [[str(one.settings.get(name)) for one in r.known] for r in (row, *self.rows)]
            if len({value for values in known for value in values}) > 1:
                parts += [f"{name} {value}" for value in sorted(set(known[0]))]
        return ", ".join(parts)


def task_tables(groups: Sequence[Group]) -> list[Task]:
    """The tasks in the order of their first results; rows in the order of the groups."""
    tasks: dict[tuple[str, str], Task] = {}
    for group in groups:
        last = [{result.key: result for result in latest(run.evaluations)} for run in group.runs]
        for kind, data, head in dict.fromkeys(key for results in last for key in results):
            row = Result(group, head, [results.get((kind, data, head)) for results in last])
            tasks.setdefault((kind, data), Task(kind, data, [])).rows.append(row)
    return list(tasks.values())


def add_zero_shot(page: Page, groups: Sequence[Group]) -> None:
    """The section of the page; nothing where no run was evaluated."""
    tasks = task_tables(groups)
    if not tasks:
        return
    page.heading("Zero-shot")
    page.paragraph(TEXTS["zero_shot"])
    fair = same_budget(groups)
    for task in tasks:
        table = task.table(fair=fair)
        page.table(*table.cells(), f"{table.title}. {TEXTS['tasks'].get(task.kind, '')}", wide=True)
        if task.kind == "text" and (lost := about_lost_text(task.inexact_shares)):
            page.notes(lost)


def evaluations_as_json(group: Group) -> list[dict[str, Any]]:
    """The results of a group as plain values, for `compare.json`."""
    return [
        {
            "kind": task.kind,
            "source": row.known[0].source,
            "data_sha256": task.data_sha256,
            "head": row.head,
            "items": row.known[0].items,
            "metrics": {
                name: number | {"errors": row.errors[name]}
                for name in row.scores
                if (number := row.as_json(name))
            },
        }
        for task in task_tables([group])
        for row in task.rows
    ]
