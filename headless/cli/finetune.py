"""`headless finetune`: a classifier on labelled text."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import headless
from headless.cli.parsing import options_from
from headless.downstream.options import FinetuneOptions, Recipe, Source


def show(found: dict[str, Any], output: Path) -> None:
    """Print the table of scores and the notes."""
    title = f"{found['model']}, {found['task']}, {found['mode']}, {len(found['seeds'])} seed(s)"
    table = Table("split", "examples", *found["metrics"], title=title)
    rows = {**found["summary"], "baseline": {k: {"mean": v} for k, v in found["baseline"].items()}}
    for split, values in rows.items():
        count = found["splits"].get(split, {}).get("examples")
        cells = []
        for metric in found["metrics"]:
            value = values.get(metric)
            half = value and value.get("interval_95")
            shown = "" if value is None else f"{value['mean']:.4f}"
            cells.append(shown if half is None else f"{shown} ± {half:.4f}")
        table.add_row(split, "" if count is None else f"{count:,}", *cells)
    console = Console()
    console.print(table)
    if any(found["truncated"].values()):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in found["truncated"].items())
        print(f"cut to {found['max_length']} tokens: {shares}")
    for note in found["notes"]:
        print(f"note: {note}")
    print(f"output directory: {output}")


def main(arguments: list[str]) -> None:
    """The command."""
    options = options_from("finetune", arguments, FinetuneOptions, Source, Recipe)
    found = headless.finetune(**options, progress=True)
    show(found, options["output"])
