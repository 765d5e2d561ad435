"""The runs of a sweep that count, for the scripts that read them."""

import re
from collections.abc import Iterator
from pathlib import Path

from headless.runs.run import Run

PLACE = re.compile(r"(?P<arm>.+?)(-lr.+)?-steps\d+-seed(?P<seed>\d+)")


def finished_runs(sweep: Path) -> Iterator[tuple[str, str, Run]]:
    """Of those that trained for their own steps: arm, seed, run."""
    for directory in sorted((sweep / "final").iterdir()):
        found = PLACE.fullmatch(directory.name)
        if found and (directory / "summary.json").is_file() and (run := Run(directory)).finished:
            yield found["arm"], found["seed"], run
