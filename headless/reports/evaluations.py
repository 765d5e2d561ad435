"""Zero-shot results of the runs: one table a task, one row a recipe group and LM head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headless.pages.numbers import is_number
from headless.pages.page import Cell, Column, Page
from headless.reports.fairness import about_lost_text, same_budget, same_tokenizer
from headless.reports.groups import Group
from headless.reports.headline import Quantity
from headless.reports.reading import Run, keyed
from headless.reports.statistics import Estimate, estimate, leader, t_quantile
from headless.runs.evaluations import Evaluation, latest

SETTINGS = ("max_length", "stride", "num_fewshot")  # what else a score depends on
MAX_SUBSETS = 8  # columns; compare.json has all


def percent(key: str, name: str, unit: str = "%", group: str = "") -> Quantity:
    """A share as a column."""
    return Quantity(key, name, unit, group, 1, "higher", 100.0)


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


@dataclass(frozen=True)
class Row:
    """A group under one LM head; the last result of each of its runs that has one."""

    group: Group
    head: str
    results: dict[str, Evaluation]  # by the run's directory

    def values(self, metric: str) -> list[float | None]:
        """A metric of every run of the group; "subset/name" is the accuracy of a subset."""
        found = [self.results.get(str(run.directory.path)) for run in self.group.runs]
        return [None if one is None else value_of(one, metric) for one in found]

    @property
    def inexact_share(self) -> float:
        """Of this text, or (results of earlier versions) of the one that was trained on."""
        known = [result.settings.get("inexact_share") for result in self.results.values()]
        return max(v if is_number(v) else self.group.inexact_share for v in known)


@dataclass(frozen=True)
class TaskTable:
    """A task that some groups were evaluated on: the same kind, the same items."""

    kind: str
    data_sha256: str
    rows: list[Row]

    @property
    def first(self) -> Evaluation:
        """A result that stands for all in what the data are."""
        return next(iter(self.rows[0].results.values()))

    @property
    def title(self) -> str:
        """Kind, data and how much of it."""
        noun = "document" if self.kind == "text" else "item"
        items = f"{self.first.items:,} {noun}{'s' * (self.first.items != 1)}"
        return f"{self.kind}: {self.first.source}, {items}"

    def special(self, row: Row) -> list[str]:
        """In words, the settings of a row that are not the same in all rows of the table."""
        every = [result for one in self.rows for result in one.results.values()]
        return [
            f"{name} {value}"
            for name in SETTINGS
            if len({str(result.settings.get(name)) for result in every}) > 1
            for value in sorted({str(r.settings.get(name)) for r in row.results.values()})
        ]

    @property
    def inexact_shares(self) -> dict[str, float]:
        """Of this text, by the groups' labels: what their tokenizers do not give back of it."""
        return {row.group.label: row.inexact_share for row in self.rows}

    def same_unit(self, key: str) -> bool:
        """Whether a score counts the same in all rows."""
        if self.kind != "text" or key not in UNITS:
            return True
        lossy = any(self.inexact_shares.values())
        tokenizers = same_tokenizer([row.group for row in self.rows])
        return tokenizers or (key == "bits_per_byte" and not lossy)

    @property
    def quantities(self) -> list[Quantity]:
        """The numbers to show, subsets last."""
        known = QUANTITIES.get(self.kind) or tuple(
            ACCURACY if name == "accuracy" else Quantity(name, name, "", "", 4)
            for name in self.first.metrics
        )
        subsets = list(self.first.subsets) if len(self.first.subsets) <= MAX_SUBSETS else []
        parts = [percent(f"subset/{name}", name, group="by subset") for name in subsets]
        return [*known, *parts]


def _marked(quantity: Quantity, table: TaskTable) -> str:
    lossy = quantity.key == "bits_per_byte" and any(table.inexact_shares.values())
    return quantity.name + "*" * lossy


def value_of(result: Evaluation, metric: str) -> float | None:
    """A metric of a result, or the accuracy of a subset: "subset/name"."""
    if metric.startswith("subset/"):
        value: Any = _subset(result, metric).get("accuracy")
    else:
        value = result.metrics.get(metric)
    return float(value) if is_number(value) else None


def task_tables(groups: Sequence[Group]) -> list[TaskTable]:
    """The tasks in the order in which they were first found; rows in the order of the groups."""
    tables: dict[tuple[str, str], dict[tuple[int, str], Row]] = {}
    for group in groups:
        for run in group.runs:
            for result in latest(run.evaluations):
                rows = tables.setdefault((result.kind, result.data_sha256), {})
                row = rows.setdefault((group.index, result.head), Row(group, result.head, {}))
                row.results[str(run.directory.path)] = result
    return [
        TaskTable(kind, sha256, [rows[key] for key in sorted(rows, key=lambda key: key[0])])
        for (kind, sha256), rows in tables.items()
    ]


def add_zero_shot(page: Page, groups: Sequence[Group]) -> None:
    """The section of the page; nothing where no run was evaluated."""
    tables = task_tables(groups)
    if not tables:
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
    for table in tables:
        columns, rows = table_cells(table, fair=fair)
        page.table(columns, rows, f"{table.title}. {ABOUT.get(table.kind, '')}", wide=True)
        if table.kind == "text" and (lost := about_lost_text(table.inexact_shares)):
            page.notes(lost)


def table_cells(table: TaskTable, *, fair: bool) -> tuple[list[Column], list[list[Cell]]]:
    """A task's table: one row a group and head; the best mean of a column is strong."""
    quantities = table.quantities
    columns = [Column("objective", "head, runs", "left")]
    columns += [Column(_marked(q, table), q.unit, "right", q.group) for q in quantities]
    means = {q.key: [estimate(row.values(q.key)) for row in table.rows] for q in quantities}
    best = {q.key: _best(q, table.rows, means[q.key]) if fair else None for q in quantities}
    rows = []
    for number, row in enumerate(table.rows):
        about = ", ".join([*_about(row), *table.special(row)])
        cells = [Cell(row.group.label, about, swatch=row.group.index)]
        for q in quantities:
            found = means[q.key][number]
            strong = table.same_unit(q.key) and best[q.key] == number
            text = q.text(found.mean if found else None)
            cells.append(Cell(text, _detail(q, row, found), strong=strong))
        rows.append(cells)
    return columns, rows


def evaluations_of(group: Group) -> list[dict[str, Any]]:
    """The results of a group as plain values, for `compare.json`."""
    found = []
    for table in task_tables([group]):
        for row in table.rows:
            one = next(iter(row.results.values()))
            names = [*one.metrics, *(f"subset/{name}" for name in one.subsets)]
            known = [(name, row.values(name), estimate(row.values(name))) for name in names]
            found.append(
                {
                    "kind": table.kind,
                    "source": one.source,
                    "data_sha256": table.data_sha256,
                    "head": row.head,
                    "items": one.items,
                    "metrics": {
                        name: {
                            "mean": e.mean,
                            "half_width": e.half_width,
                            "n": e.n,
                            "values": values,
                            "errors": [
                                _error(row.results.get(str(run.directory.path)), name)
                                for run in group.runs
                            ],
                        }
                        for name, values, e in known
                        if e is not None
                    },
                }
            )
    return found


def _about(row: Row) -> list[str]:
    count = len(row.results)
    parts = [f"{row.head} head", f"{count} run{'s' * (count > 1)}"]
    steps = {_step(run, row) for run in row.group.runs} - {None}
    parts += [f"step {step:,}" for step in sorted(step for step in steps if step is not None)]
    return parts


def _step(run: Run, row: Row) -> int | None:
    """The checkpoint's step, where it is not the last one of the run."""
    result = row.results.get(str(run.directory.path))
    step = result.step if result else None
    return step if step is not None and step != run.value("step") else None


def _detail(quantity: Quantity, row: Row, found: Estimate | None) -> str:
    if found is None:
        return ""
    if found.n > 1:
        return quantity.interval(found)
    error = _standard_error(quantity, row, found)
    return f"s.e. {quantity.text(error)}" if error else ""


def _standard_error(quantity: Quantity, row: Row, found: Estimate) -> float | None:
    """Of a row's mean: over its runs; over the items where there is one run and it is known."""
    if found.n > 1:
        return (found.half_width or 0.0) / t_quantile(found.n - 1)
    errors = [_error(result, quantity.key) for result in row.results.values()]
    return next((error for error in errors if error), None)


def _error(result: Evaluation | None, metric: str) -> float | None:
    if result is None:
        return None
    if metric.startswith("subset/"):
        value: Any = _subset(result, metric).get("accuracy_error")
    else:
        value = result.errors.get(metric)
    return float(value) if is_number(value) else None


def _subset(result: Evaluation, metric: str) -> dict[str, Any]:
    found = result.subsets.get(metric.removeprefix("subset/"))
    return found if isinstance(found, dict) else {}


def _best(quantity: Quantity, rows: Sequence[Row], means: Sequence[Estimate | None]) -> int | None:
    """The place of the row that leads by more than chance: over seeds where all have several, else
    by more than two standard errors of the difference."""
    if quantity.better is None or len(rows) < 2:
        return None
    if all(one is not None and one.n > 1 for one in means):
        by_seed = [keyed(row.group.runs, row.values(quantity.key)) for row in rows]
        return leader(by_seed, quantity.better)
    sign = 1 if quantity.better == "lower" else -1
    known = [
        (sign * one.mean, error**2, place)
        for place, (row, one) in enumerate(zip(rows, means, strict=True))
        if one is not None and (error := _standard_error(quantity, row, one)) is not None
    ]
    if len(known) < len(rows):
        return None
    (first, own, place), (second, other, _), *_ = sorted(known)
    return place if second - first > 2 * (own + other) ** 0.5 else None
