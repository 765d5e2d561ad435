"""Rows with named columns from files and `datasets`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headless.data.records import RECORDS, load_named, read_file
from headless.data.text_files import kind_of
from headless.downstream.classification.tasks import TASKS, TextTask, suggestion
from headless.errors import HeadlessError

VALIDATION_NAMES = ("validation", "valid", "val", "dev")

Rows = tuple[list[dict[str, Any]], Sequence[str] | None]  # and the names of a class label's numbers


def open_rows(task: TextTask, data: str) -> dict[str, Rows]:
    """The splits that are there, by our names: "train" and, in a data set, others."""
    path = Path(data)
    if path.is_file():
        return {"train": (read_rows(path), None)}
    if kind_of(path, RECORDS) is not None:
        raise HeadlessError(f"there is no {path}")
    return _open_dataset(task, data)


def _open_dataset(task: TextTask, name: str) -> dict[str, Rows]:
    try:
        loaded = load_named(name)
    except HeadlessError as error:
        line = " ".join(str(error.__cause__).split())[:200]
        hint = suggestion(name, list(TASKS), "tasks")
        raise HeadlessError(
            f"{name!r} is no task, no file, and datasets cannot load it ({line}); {hint}"
        ) from error
    if not isinstance(loaded, dict):
        loaded = {"train": loaded}
    names = [task.validation] if task.validation else VALIDATION_NAMES
    wanted = {
        "train": "train",
        "validation": next((n for n in names if n in loaded), None),
        "also": task.also,
        "test": task.test,
    }
    found: dict[str, Rows] = {}
    for ours, theirs in wanted.items():
        if theirs is not None and theirs in loaded:
            feature = loaded[theirs].features.get(task.label_column)
            found[ours] = (loaded[theirs].to_list(), getattr(feature, "names", None))
    if "train" not in found:
        raise HeadlessError(f"{name} has no split train (it has {', '.join(loaded)})")
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, as `headless.data.records` reads it."""
    if kind_of(path, RECORDS) is None:
        raise HeadlessError(f"{path} is none of {', '.join(RECORDS)}: rename it or convert it")
    rows = [record.fields for record in read_file(path)]
    if not rows:
        raise HeadlessError(f"{path} holds no rows with named columns")
    return rows
