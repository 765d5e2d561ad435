"""`headless compare`: run directories to a table and one self-contained report.html."""

from collections.abc import Sequence
from pathlib import Path

from headless.cli.parsing import CommandParser
from headless.errors import HeadlessError
from headless.reports.compare import Comparison, compare
from headless.reports.headline import shown
from headless.reports.statistics import estimate


def show(comparison: Comparison) -> None:
    """Print the headline numbers: one row a number, one column a group."""
    from rich.console import Console
    from rich.table import Table

    groups = comparison.groups
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for group in groups:
        count = f" [dim]({len(group.runs)} runs)[/dim]" if len(group.runs) > 1 else ""
        table.add_column(f"{_plain(group.label)}{count}", justify="right")
    for quantity in shown(groups):
        found = [estimate(group.values(quantity.key)) for group in groups]
        cells = [
            f"{quantity.text(e.mean if e else None)} [dim]{quantity.interval(e)}[/dim]".strip()
            for e in found
        ]
        unit = f" [dim]{quantity.unit}[/dim]" if quantity.unit else ""
        table.add_row(f"{quantity.name}{unit}", *cells)
    console = Console()
    console.print(table)
    for warning in comparison.warnings:
        console.print(f"[yellow]warning:[/yellow] {_plain(warning)}", highlight=False)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def main(arguments: list[str]) -> None:
    """The command.

    Raises:
        HeadlessError: no runs, not a run directory, or an output that exists.
    """
    parser = CommandParser(
        prog="headless compare",
        description="Run directories to a table and one self-contained report.html.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="*", type=Path, help="the run directories, several")
    parser.add_argument(
        "--output", type=Path, default=None, help="where report.html and compare.json go"
    )
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="replace a report that is there already"
    )
    options = parser.parse_args(arguments)
    runs: Sequence[Path] = options.runs
    if options.output is None:
        raise HeadlessError(
            "say where the report goes: headless compare runs/a runs/b --output DIR"
        )
    comparison = compare(runs, options.output, overwrite=options.overwrite)
    show(comparison)
    print(f"report: {comparison.report}")
