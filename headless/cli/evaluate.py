"""`headless evaluate`: perplexity and zero-shot tasks, with standard errors."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import headless
from headless.cli.parsing import options_from
from headless.data.stream import caution
from headless.runs.evaluations import Evaluation

PLACES = {"accuracy": 4, "nll": 4, "bits_per_byte": 4}  # decimals; others: significant digits
SUBSETS = 20  # lines of a table; the file has all


def show(evaluations: Sequence[Evaluation], title: str) -> None:
    """Print the numbers, each with its standard error over the items."""
    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold")
    table.add_column("task", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for name in ("value", "± s.e.", "items"):
        table.add_column(name, justify="right", no_wrap=True)
    for evaluation in evaluations:
        task, items = f"{evaluation.kind}:{escape(evaluation.source)}", f"{evaluation.items:,}"
        for metric, value in evaluation.metrics.items():
            error = evaluation.errors.get(metric)
            table.add_row(task, metric, number(metric, value), number(metric, error), items)
            task, items = "", ""
        for name, part in list(evaluation.subsets.items())[:SUBSETS]:
            value, error = part.get("accuracy"), part.get("accuracy_error")
            table.add_row(
                f"  {escape(name)}",
                "accuracy",
                number("accuracy", value),
                number("accuracy", error),
                f"{part['items']:,}",
                style="dim",
            )
        if (more := len(evaluation.subsets) - SUBSETS) > 0:
            table.add_row(f"  and {more} more subsets", *[""] * 4, style="dim")
        notes = {"skipped": evaluation.skipped, "cut to fit": evaluation.truncated}
        for note, count in notes.items():
            if count:
                table.add_row(f"  {count:,} {note}", *[""] * 4, style="dim")
    Console().print(table)
    for evaluation in evaluations:
        if said := caution(evaluation.settings.get("inexact_share")):
            print(f"note: {evaluation.kind}:{evaluation.source}: {said}")


def number(metric: str, value: Any) -> str:
    """A score with as many digits as its metric deserves."""
    if value is None:
        return "–"
    places = PLACES.get("accuracy" if metric.startswith("accuracy") else metric)
    return f"{value:,.{places}f}" if places else f"{value:,.5g}"


def main(arguments: list[str]) -> None:
    options = options_from("evaluate", arguments)  # before what takes seconds to import
    evaluated = headless.evaluate(**options, progress=True)
    show(evaluated.results, f"{evaluated.model}, {evaluated.head} head")
    for path in evaluated.files:
        print(f"results: {path}")
