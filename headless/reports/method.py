"""How a comparison was made: the runs, the commands that make it again, the definitions."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headless
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column, Page
from headless.reports.comparison import Compared
from headless.reports.groups import runs_of
from headless.reports.headline import baseline_of
from headless.reports.texts import TEXTS
from headless.runs.directory import RunDirectory
from headless.runs.run import Run

NOT_KNOWN = "not known"
COLUMNS = (
    Column("run", "", "left"),
    Column("seed"),
    Column("steps"),
    Column("wall clock", "seconds"),
    Column("hardware", "", "left"),
    Column("code", "", "left"),
)


def add_method(page: Page, compared: Compared, output: Path) -> None:
    """The section: the runs, what makes it again, and what the words mean."""
    groups = [*compared.groups, *compared.tuned]
    runs = runs_of(groups)
    page.heading("How this was made")
    rows: list[list[Cell | str]] = [
        [
            Cell(run.name, "" if run.finished else "not finished", swatch=group.index),
            MISSING if run.seed is None else str(run.seed),
            decimals(run.value("step"), 0),
            decimals(run.summary.get("wall_seconds"), 0),
            _hardware(run.environment),
            _code(run.environment),
        ]
        for group in groups
        for run in group.runs
    ]
    if rows:
        page.table(COLUMNS, rows, TEXTS["runs"])
    if compared.left_out:
        page.notes(compared.left_out, title="Left out")
    page.heading("To make it again", level=3)
    page.code("\n".join(_commands(compared, runs, output)))
    if runs:
        with page.details("Commands as they were given, and versions"):
            given = [(run.name, run.environment.get("command") or NOT_KNOWN) for run in runs]
            page.code("\n".join(f"{name}: {command}" for name, command in given))
            page.definitions(_versions(runs))
        page.heading("Definitions", level=3)
        page.definitions(list(TEXTS["definitions"].items()))
    page.paragraph(f"Made by headless {headless.__version__} from the files named above alone.")


def _commands(compared: Compared, runs: Sequence[Run], output: Path) -> list[str]:
    """The runs, the fine-tunings and the comparison, as one would call them."""
    commands = [
        shlex.join(
            ["headless", "pretrain", "--config", str(run.directory.config)]
            + ["--run.name", f"{run.name}-again"]
        )
        for run in runs
    ]
    tuned = [one.path for one in compared.finetunings]
    commands += [
        shlex.join(
            ["headless", "finetune", "--config", str(RunDirectory(path).config)]
            + ["--output", f"{path}-again"]
        )
        for path in tuned
    ]
    parts = [shlex.quote(str(place)) for place in (*(run.directory.path for run in runs), *tuned)]
    if compared.baseline not in (None, baseline_of(compared.groups) if compared.groups else None):
        parts.append(f"--baseline {shlex.quote(compared.baseline.label)}")
    parts.append(f"--output {shlex.quote(str(output))} --overwrite true")
    return [*commands, " \\\n    ".join(["headless compare", *parts])]


def _hardware(environment: dict[str, Any]) -> Cell:
    gpus = [str(name) for name in environment.get("gpus") or []]
    processor = str(environment.get("cpu") or NOT_KNOWN)
    if cores := environment.get("cores"):
        processor = f"{processor}, {cores} cores"
    if not gpus:
        return Cell(processor)
    return Cell(", ".join(f"{gpus.count(name)} × {name}" for name in sorted(set(gpus))), processor)


def _code(environment: dict[str, Any]) -> Cell:
    commit = str(environment.get("commit") or "")[:10]
    changed = ", modified" if commit and environment.get("dirty") else ""
    return Cell(str(environment.get("headless") or NOT_KNOWN), commit + changed)


def _versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    versions: dict[str, set[str]] = {}
    for run in runs:
        packages = run.environment.get("packages") or {}
        for name, version in {"python": run.environment.get("python"), **packages}.items():
            if version:
                versions.setdefault(name, set()).add(str(version))
    return [(name, ", ".join(sorted(several))) for name, several in versions.items()]
