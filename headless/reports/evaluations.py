"""Zero-shot results of the runs: one table a task, one row a recipe group and LM head."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headless.pages.page import Column, Page
from headless.reports.fairness import about_lost_text, same_budget, same_tokenizer
from headless.reports.groups import Group
from headless.reports.tables import Quantity, Row, Table, percent
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
UNITS = {"nll", "perplexity", "bits_per_byte"}  # of a text: what they count is the tokenizer's


@dataclass
class Result(Row):
    """A group under one LM head: the last result of each of its runs, None where it has none.

    "subset/name" is the accuracy of a subset.
    """

    group: Group
    head: str
    results: list[Evaluation | None]

    @property
    def known(self) -> list[Evaluation]:
        return [result for result in self.results if result is not None]

    def values(self, key: str) -> list[float | None]:
        return [_value(result, key) for result in self.results]

    def by_seed(self, key: str) -> dict[int, float | None]:
        return self.group.keyed(self.values(key))

    def errors(self, key: str) -> list[float | None]:
        return [_value(result, key, error=True) for result in self.results]

    def error(self, key: str) -> float | None:
        return next(filter(None, self.errors(key)), None)

    @property
    def inexact_share(self) -> float:
        """Of this text, or (results of earlier versions) of the one that was trained on."""
        shares = [result.settings.get("inexact_share") for result in self.known]
        return max(s if is_number(s) else self.group.inexact_share for s in shares)


@dataclass
class Task:
    """A task that some groups were evaluated on: the same kind, the same items."""

    kind: str
    data_sha256: str
    rows: list[Result] = field(default_factory=list)

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
        tokenizers = same_tokenizer([row.group for row in self.rows])

        def can_lead(quantity: Quantity) -> bool:
            if self.kind == "text" and quantity.key in UNITS and not tokenizers:
                return fair and quantity.key == "bits_per_byte" and not lossy
            return fair

        quantities = QUANTITIES.get(self.kind) or [
            ACCURACY if name == "accuracy" else Quantity(name, name, digits=4)
            for name in self.first.metrics
        ]
        columns = [
            replace(q, name=q.name + "*" * (lossy and q.key == "bits_per_byte")) for q in quantities
        ]
        if len(self.first.subsets) <= MAX_SUBSETS:
            subsets = ((f"subset/{name}", name) for name in self.first.subsets)
            columns += [percent(key, name, group="by subset") for key, name in subsets]
        noun = "document" if self.kind == "text" else "item"
        items = f"{self.first.items:,} {noun}{'s' * (self.first.items != 1)}"
        title = f"{self.kind}: {self.first.source}, {items}"
        for place, row in enumerate(self.rows):
            row.about = self._describe(row, place)
        heading = Column("objective", "head, runs", "left")
        return Table(heading, columns, self.rows, can_lead, title=title)

    def _describe(self, row: Result, place: int) -> str:
        """Head, runs, and what is not the same in all rows: a step before the last, settings."""
        pairs = zip(row.group.runs, row.results, strict=True)
        steps = {one.step: run.value("step") for run, one in pairs if one and one.step is not None}
        parts = [f"{row.head} head", f"{len(row.known)} run{'s' * (len(row.known) > 1)}"]
        parts += [f"step {step:,}" for step, last in sorted(steps.items()) if step != last]
        for name in SETTINGS:
            values = [{str(one.settings.get(name)) for one in other.known} for other in self.rows]
            if len(set.union(*values)) > 1:
                parts += [f"{name} {value}" for value in sorted(values[place])]
        return ", ".join(parts)


def _value(result: Evaluation | None, metric: str, *, error: bool = False) -> float | None:
    """A metric of a result, or its standard error."""
    if result is None:
        return None
    values: Any = result.errors if error else result.metrics
    if metric.startswith("subset/"):
        values = result.subsets.get(metric.removeprefix("subset/"))
        metric = "accuracy_error" if error else "accuracy"
    value = values.get(metric) if isinstance(values, dict) else None
    return float(value) if is_number(value) else None


def task_tables(groups: Sequence[Group]) -> list[Task]:
    """The tasks in the order of their first results; rows in the order of the groups."""
    tasks: dict[tuple[str, str], Task] = {}
    rows: dict[tuple[Any, ...], Result] = {}
    for group in groups:
        for place, run in enumerate(group.runs):
            for result in latest(run.evaluations):
                key = (result.kind, result.data_sha256)
                task = tasks.setdefault(key, Task(*key))
                if (*key, group.index, result.head) not in rows:
                    row = Result(group, result.head, [None] * len(group.runs))
                    row.label, row.index = group.label, group.index
                    rows[*key, group.index, result.head] = row
                    task.rows.append(row)
                rows[*key, group.index, result.head].results[place] = result
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
    entries = []
    for task in task_tables([group]):
        for row in task.rows:
            first = row.known[0]
            names = [*first.metrics, *(f"subset/{name}" for name in first.subsets)]
            numbers = {name: row.as_json(name) for name in names}
            entry: dict[str, Any] = {"kind": task.kind, "source": first.source}
            entry |= {"data_sha256": task.data_sha256, "head": row.head, "items": first.items}
            entry["metrics"] = {k: n | {"errors": row.errors(k)} for k, n in numbers.items() if n}
            entries.append(entry)
    return entries
