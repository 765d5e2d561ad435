"""Zero-shot results of the runs: one table a task, one row a recipe group and LM head."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headless.pages.page import Column, Page
from headless.reports.fairness import about_lost_text, same_budget, same_tokenizer
from headless.reports.groups import Group
from headless.reports.tables import Quantity, Row, Table, percent
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
ABOUT = {
    "text": "Each document is predicted by itself, every token once, in windows of the model's "
    "length; ends of documents are not scored.",
    "lambada": "The last word of a passage, in LAMBADA's format: accuracy is the share of words "
    "whose tokens are all the likeliest, perplexity exp of a word's mean negative log-likelihood.",
    "blimp": "Minimal pairs in BLiMP's format: share of pairs whose acceptable sentence is "
    "the likelier one (chance: 50 %).",
    "choice": "Share of questions whose right answer is the likeliest: by its log-likelihood, and "
    "by the same per character and per byte.",
    "harness": "A task of lm-evaluation-harness, with its own metrics.",
}
UNITS = {"nll", "perplexity", "bits_per_byte"}  # of a text: what they count is the tokenizer's


@dataclass
class Result(Row):
    """A group under one LM head; the last result of each of its runs, None where it has none."""

    group: Group
    head: str
    results: list[Evaluation | None]
    about: str = ""

    @property
    def label(self) -> str:  # type: ignore[override]
        """The group's."""
        return self.group.label

    @property
    def index(self) -> int:  # type: ignore[override]
        """The group's."""
        return self.group.index

    @property
    def known(self) -> list[Evaluation]:
        """The results there are."""
        return [result for result in self.results if result is not None]

    def values(self, key: str) -> list[float | None]:
        """A metric of every run of the group; "subset/name" is the accuracy of a subset."""
        return [_value(result, key) for result in self.results]

    def by_seed(self, key: str) -> dict[int, float | None]:
        """A metric of every run, by its seed."""
        return self.group.keyed(self.values(key))

    def errors(self, key: str) -> list[float | None]:
        """The standard error over the items of every run's metric."""
        return [_value(result, key, error=True) for result in self.results]

    def error(self, key: str) -> float | None:
        """The first that is known."""
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

        own = [
            ACCURACY if name == "accuracy" else Quantity(name, name, digits=4)
            for name in self.first.metrics
        ]
        known = [
            replace(q, name=q.name + "*" * (lossy and q.key == "bits_per_byte"))
            for q in QUANTITIES.get(self.kind) or own
        ]
        subsets = list(self.first.subsets) if len(self.first.subsets) <= MAX_SUBSETS else []
        parts = [percent(f"subset/{name}", name, group="by subset") for name in subsets]
        heading = Column("objective", "head, runs", "left")
        noun = "document" if self.kind == "text" else "item"
        items = f"{self.first.items:,} {noun}{'s' * (self.first.items != 1)}"
        title = f"{self.kind}: {self.first.source}, {items}"
        return Table(heading, [*known, *parts], self.rows, can_lead, title=title)

    def describe(self, row: Result) -> str:
        """Below a row's label: head, runs, and what is not the same in all rows."""
        runs = zip(row.group.runs, row.results, strict=True)
        steps = {one.step for run, one in runs if one and one.step not in (None, run.value("step"))}
        every = [result for one in self.rows for result in one.known]
        return ", ".join(
            [
                f"{row.head} head",
                f"{len(row.known)} run{'s' * (len(row.known) > 1)}",
                *(f"step {step:,}" for step in sorted(step for step in steps if step is not None)),
                *(
                    f"{name} {value}"
                    for name in SETTINGS
                    if len({str(result.settings.get(name)) for result in every}) > 1
                    for value in sorted({str(r.settings.get(name)) for r in row.known})
                ),
            ]
        )


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
    """The tasks in the order in which they were first found; rows in the order of the groups."""
    tasks: dict[tuple[str, str], Task] = {}
    for group in groups:
        for place, run in enumerate(group.runs):
            for result in latest(run.evaluations):
                task = tasks.setdefault(result.key[:2], Task(*result.key[:2]))
                rows = (r for r in task.rows if r.group is group and r.head == result.head)
                if (row := next(rows, None)) is None:
                    row = Result(group, result.head, [None] * len(group.runs))
                    task.rows.append(row)
                row.results[place] = result
    for task in tasks.values():
        for row in task.rows:
            row.about = task.describe(row)
    return list(tasks.values())


def add_zero_shot(page: Page, groups: Sequence[Group]) -> None:
    """The section of the page; nothing where no run was evaluated."""
    tasks = task_tables(groups)
    if not tasks:
        return
    page.heading("Zero-shot")
    page.paragraph(
        "What `headless evaluate` found: the last result of each run, task and LM head. With "
        "several seeds ± is the 95 % interval of the mean over them; with one, s.e. is the "
        "standard error over the items of the task. Bold: the best, where the budget is the same "
        "and its lead is more than chance: the interval of its difference to every other leaves "
        "zero out or, with one seed, it is more than two standard errors ahead of the next."
    )
    fair = same_budget(groups)
    for task in tasks:
        table = task.table(fair=fair)
        page.table(*table.cells(), f"{table.title}. {ABOUT.get(task.kind, '')}", wide=True)
        if task.kind == "text" and (lost := about_lost_text(task.inexact_shares)):
            page.notes(lost)


def evaluations_of(group: Group) -> list[dict[str, Any]]:
    """The results of a group as plain values, for `compare.json`."""
    entries = []
    for task in task_tables([group]):
        for row in task.rows:
            first = row.known[0]
            names = [*first.metrics, *(f"subset/{name}" for name in first.subsets)]
            numbers = {name: row.as_json(name) for name in names}
            entries.append(
                {
                    "kind": task.kind,
                    "source": first.source,
                    "data_sha256": task.data_sha256,
                    "head": row.head,
                    "items": first.items,
                    "metrics": {
                        name: number | {"errors": row.errors(name)}
                        for name, number in numbers.items()
                        if number
                    },
                }
            )
    return entries
