"""`headless sweep`: many runs from one file, and how far they are."""

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import headless
from headless.cli.parsing import parser_of
from headless.sweeps.config import as_sweep
from headless.sweeps.outcome import read_status


def main(arguments: list[str]) -> None:
    parser = parser_of("sweep")
    parser.add_argument("--status", action="store_true", help="say how far it is, and run nothing")
    options = parser.instantiate_classes(parser.parse_args(arguments))
    config = as_sweep(options)
    if options["status"]:
        show(read_status(config))
        return
    outcome = headless.sweep(config, progress=True)
    if "jobs" in outcome:
        print(f"submitted: {', '.join(outcome['jobs'])}; the last one writes the page")
        return
    show(read_status(config))
    for report in outcome["reports"].values():
        print(f"report: {report}")


def show(rows: list[dict[str, Any]]) -> None:
    """A row an arm."""
    table = Table(box=None, header_style="bold")
    columns = ("arm", "tuned", "done", "running", "waiting", "best nll", "nll", "core-hours")
    for name in columns:
        table.add_column(name, justify="left" if name in columns[:2] else "right")
    for row in rows:
        tuned = row["tuned"] or {}
        words = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in tuned.items())
        done = f"{row['done']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
        best = row["best"]
        means = [
            f"{sum(scores.values()) / len(scores):.4f} ({len(scores)})"
            for scores in row["scores"].values()
            if scores
        ]
        table.add_row(
            escape(row["arm"]),
            escape(words),
            done,
            str(row["running"]),
            str(row["waiting"]),
            "–" if best is None or best == math.inf else f"{best:.4f}",
            ", ".join(means) or "–",
            f"{row['core_hours']:.2f}",
        )
    Console().print(table)
    for row in rows:
        for note in row["notes"]:
            print(f"{row['arm']}: {note}")
    total = {key: sum(row[key] for row in rows) for key in ("done", "running", "waiting")}
    hours = sum(row["core_hours"] for row in rows)
    print(", ".join(f"{count} {key}" for key, count in total.items()) + f", {hours:.2f} core-hours")
