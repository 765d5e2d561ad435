"""`headless analyze`: the inside of a language model as a page."""

from pathlib import Path

import headless
from headless.cli.parsing import options_from
from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory


def main(arguments: list[str]) -> None:
    options = options_from("analyze", arguments)
    if options["output"] is None:
        run = RunDirectory(Path(options["model"]))
        if not run.config.is_file():
            raise HeadlessError(
                f"{run.path} is not a run directory: say where to write with --output DIR"
            )
        options["output"] = run.analysis
    inside = headless.analyze(**options, progress=True)
    for title, answer in inside.answers():
        print(f"{title}: {answer}")
    if claims := inside.claims():
        print(claims)
    print(f"page: {inside.page}")
