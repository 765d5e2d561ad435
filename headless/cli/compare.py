"""`headless compare`: run directories to a table and one self-contained report.html."""

from collections.abc import Sequence
from pathlib import Path

from headless.errors import HeadlessError
from headless.reports.compare import compare
from headless.training.parsing import CommandParser


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
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        help="run directories, directories of headless finetune, or folders of these, several",
    )
    parser.add_argument(
        "--output", type=Path, default=None, help="where report.html and compare.json go"
    )
    parser.add_argument(
        "--baseline",
        type=str,
        default=None,
        help="what the others are measured against: a run's name, or a recipe's as the table "
        "shows it; the first cross-entropy one by default",
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
    comparison = compare(
        runs, options.output, overwrite=options.overwrite, baseline=options.baseline
    )
    from headless.reports.terminal import show  # rich is not needed to answer --help

    show(comparison)
    print(f"report: {comparison.report}")
