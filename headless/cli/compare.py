"""`headless compare`: run directories to a table and one self-contained report.html."""

from pathlib import Path

from headless.errors import HeadlessError
from headless.reports.compare import compare
from headless.training.parsing import CommandParser


def main(arguments: list[str]) -> None:
    """The command.

    Raises:
        HeadlessError: as `compare`, or no output.
    """
    parser = CommandParser(
        prog="headless compare",
        description="Run directories to a table and one self-contained report.html.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with these options")
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        help="run directories, directories of headless finetune, or folders of these, several",
    )
    parser.add_function_arguments(compare, as_group=False, skip={"runs"})
    options = parser.parse_args(arguments)
    if options.output is None:
        raise HeadlessError(
            "say where the report goes: headless compare runs/a runs/b --output DIR"
        )
    options.pop("config", None)
    comparison = compare(**options)
    from headless.reports.terminal import show  # rich is not needed to answer --help

    show(comparison)
    print(f"report: {comparison.report}")
