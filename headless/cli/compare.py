"""`headless compare`: run directories to a table and one self-contained report.html."""

import headless
from headless.cli.parsing import options_from
from headless.errors import HeadlessError
from headless.reports.terminal import show


def main(arguments: list[str]) -> None:
    options = options_from("compare", arguments)
    if options["output"] is None:
        raise HeadlessError(
            "say where the report goes: headless compare runs/a runs/b --output DIR"
        )
    comparison = headless.compare(**options)
    show(comparison)
    print(f"report: {comparison.report}")
