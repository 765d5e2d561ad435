"""`headless sweep`: many runs from one file, and how far they are."""

import math
from statistics import fmean
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
    if jobs := outcome.get("jobs"):
        print(f"submitted: {', '.join(jobs)}; the last one writes the page")
        return
    show(outcome["arms"])
    for report in outcome["reports"].values():
        print(f"report: {report}")


def show(arms: dict[str, dict[str, Any]]) -> None:
    """A row an arm, and the sum of all."""
    table = Table(box=None, header_style="bold")
    budgets = [f"nll, {b.replace('_', ' ')}" for b in next(iter(arms.values()))["budgets"]]
    columns = ("arm", "tuned", "done", "running", "waiting", "best nll", *budgets, "hours")
    for name in columns:
        width = len("0.0000 (9)") if name in budgets else None
        justify: Any = "left" if name in columns[:2] else "right"
        table.add_column(name, justify=justify, min_width=width)
    for name, arm in arms.items():
        tuned = (f"{key.rsplit('.', 1)[-1]} {v}" for key, v in (arm["tuned"] or {}).items())
        failed = f" ({len(arm['failed'])} failed)" if arm["failed"] else ""
        scores = [list(budget["nll_by_seed"].values()) for budget in arm["budgets"].values()]
        table.add_row(
            escape(name),
            escape(", ".join(tuned)),
            f"{arm['done']}{failed}",
            str(arm["running"]),
            str(arm["waiting"]),
            f"{arm['best']:.4f}" if arm["best"] not in (None, math.inf) else "–",
            *(f"{fmean(nlls):.4f} ({len(nlls)})" if nlls else "–" for nlls in scores),
            f"{arm['core_hours']:.2f}",
        )
    Console().print(table)
    for name, arm in arms.items():
        for note in arm["notes"]:
            print(f"{name}: {note}")
    counts = (
        f"{sum(a[key] for a in arms.values())} {key}" for key in ("done", "running", "waiting")
    )
    print(f"{', '.join(counts)}, {sum(arm['core_hours'] for arm in arms.values()):.2f} core-hours")
