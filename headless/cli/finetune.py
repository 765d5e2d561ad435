"""`headless finetune`: a classifier on labelled text."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import headless
from headless.cli.parsing import options_from


def show(result: dict[str, Any], output: Path) -> None:
    title = f"{result['model']}, {result['task']}, {result['mode']}, {len(result['seeds'])} seed(s)"
    table = Table("split", "examples", *result["metrics"], title=title)
    rows = {
        **result["summary"],
        "baseline": {k: {"mean": v} for k, v in result["baseline"].items()},
    }
    for split, values in rows.items():
        count = result["splits"].get(split, {}).get("examples")
        cells = []
        for metric in result["metrics"]:
            value = values.get(metric)
            half = value and value.get("interval_95")
            shown = "" if value is None else f"{value['mean']:.4f}"
            cells.append(shown if half is None else f"{shown} ± {half:.4f}")
        table.add_row(split, "" if count is None else f"{count:,}", *cells)
    console = Console()
    console.print(table)
    if any(result["truncated"].values()):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in result["truncated"].items())
        print(f"cut to {result['max_length']} tokens: {shares}")
    for note in result["notes"]:
        print(f"note: {note}")
    print(f"output directory: {output}")


def main(arguments: list[str]) -> None:
    options = options_from("finetune", arguments)
    result = headless.finetune(**options, progress=True)
    show(result, options["output"])
