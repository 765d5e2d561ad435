"""Rows with named columns from files and `datasets`."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headless.downstream.classification.tasks import TASKS, TextTask, suggestion
from headless.errors import HeadlessError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")

Rows = tuple[list[dict[str, Any]], Sequence[str] | None]  # and the names of a class label's numbers


def open_rows(task: TextTask, data: str) -> dict[str, Rows]:
    """The splits that are there, by our names: "train" and, in a data set, others.

    Raises:
        HeadlessError: nothing is there, or it cannot be read.
    """
    path = Path(data)
    if path.is_file():
        return {"train": (read_rows(path), None)}
    if path.suffix in SUFFIXES:
        raise HeadlessError(f"there is no {path}")
    return _open_dataset(task, data)


def _open_dataset(task: TextTask, name: str) -> dict[str, Rows]:
    import datasets

    datasets.disable_progress_bars()
    try:
        if Path(name).is_dir():
            loaded: Any = datasets.load_from_disk(name)
        else:
            base, _, config = name.partition(":")
            loaded = datasets.load_dataset(base, config or None)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        line = " ".join(str(error).split())[:200]
        hint = suggestion(name, list(TASKS), "tasks")
        raise HeadlessError(
            f"{name!r} is no task, no file, and datasets cannot load it ({line}); {hint}"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = datasets.DatasetDict({"train": loaded})
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
    """The rows of a csv, tsv (quotes are text there, as in GLUE's files), jsonl or parquet file.

    Raises:
        HeadlessError: it cannot be read, has no rows, or a row has no such columns.
    """
    if path.suffix not in SUFFIXES:
        raise HeadlessError(f"{path} is none of {', '.join(SUFFIXES)}: rename it or convert it")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            rows = parquet.read_table(path).to_pylist()
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            rows = _read_table(path)
    except (OSError, ValueError, csv.Error) as error:  # Arrow's and JSON's errors are ValueErrors
        raise HeadlessError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise HeadlessError(f"{path} holds no rows with named columns")
    return rows


def _read_table(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    quoting: Any = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=quoting)
        header = next(reader, [])
        rows = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"line {reader.line_num} has {len(row)} columns and the first {len(header)}"
                )
            rows.append(dict(zip(header, row, strict=True)))
    return rows
