"""Labelled text from files and `datasets`, and its splits."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headless.downstream.classification.tasks import TASKS, TextTask, suggestion
from headless.errors import HeadlessError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
UNLABELLED = -1  # what a `datasets` class label is where nobody may know it


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, as they were read.

    Args:
        texts: the first, or only, text of each example.
        pairs: the second ones; None for single sentences.
        labels: class names, or numbers.
        groups: of which none may stand in two splits.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int]) -> "Examples":
        """Some of them."""
        chosen = list(indices)
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return Examples(
            [self.texts[i] for i in chosen],
            pairs,
            [self.labels[i] for i in chosen],
            [self.groups[i] for i in chosen],
        )


@dataclass(frozen=True)
class LabelledText:
    """A task's examples.

    Args:
        splits: "train" and "validation"; "test" where there is one with labels; "also": a second
            split to report.
        classes: their names; empty for regression.
        notes: what a reader of the scores should know.
    """

    splits: dict[str, Examples]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def reported(self) -> str:
        """The split whose scores count."""
        return "test" if "test" in self.splits else "validation"


@dataclass(frozen=True)
class Source:
    """Where the examples are.

    Args:
        data: a file, the directory of a saved dataset, or a `datasets` name ("name:config").
        validation: a file of its own.
        test: a file of its own.
        validation_fraction: cut from the training text where there is no validation split.
        test_fraction: cut, too, where there is neither.
        split_seed: decides what goes where.
        group_column: examples with the same value there stay together.
    """

    data: str
    validation: Path | None = None
    test: Path | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0
    group_column: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1 or not 0 <= self.test_fraction < 1:
            raise HeadlessError("validation_fraction and test_fraction must lie between 0 and 1")
        if self.validation_fraction + self.test_fraction >= 1:
            raise HeadlessError("validation_fraction + test_fraction leave nothing to train on")


def read_task(task: TextTask, source: Source) -> LabelledText:
    """Read a task's examples and cut what splits are missing.

    Raises:
        HeadlessError: something that cannot be read, columns that are not there, empty texts,
            labels that are not numbers (regression) or that training does not know, one class.
    """
    found = _open(task, source)
    splits: dict[str, Examples] = {}
    notes = []
    for name, (rows, names) in found.items():
        columns = dict.fromkeys(c for r in rows[:100] for c in r)
        place = name if task.dataset or len(found) > 1 else source.data
        examples = _examples(task, rows, list(columns), names, source.group_column, place)
        if len(examples) < len(rows):
            notes.append(f"{len(rows) - len(examples)} of {len(rows)} in {name} have no label")
        if len(examples):
            splits[name] = examples
    if "train" not in splits:
        raise HeadlessError(f"{source.data} has no labelled example to train on")
    if "validation" not in splits:
        share = 0.0 if "test" in splits else source.test_fraction
        cut = split(
            splits["train"],
            source.validation_fraction,
            share,
            source.split_seed,
            stratify=not task.regression,
        )
        splits |= {name: part for name, part in cut.items() if len(part)}
        if "validation" not in splits or not len(cut["train"]):
            raise HeadlessError(
                f"{source.data} has too few examples to cut: give --validation FILE"
            )
    if "test" not in splits:
        notes.append("no labelled test split: scores are those of the validation split")
    if task.regression:
        return LabelledText(splits, (), tuple(notes))
    classes = task.classes or _sorted(set(splits["train"].labels))
    _check_classes(classes, splits)
    return LabelledText(splits, classes, tuple(notes))


def split(
    examples: Examples, validation: float, test: float, seed: int, *, stratify: bool
) -> dict[str, Examples]:
    """Cut into "train", "validation" and "test": the same cut every time.

    Groups stay whole (so do equal texts: each is its own group otherwise). With `stratify` every
    class (a group counts for its most frequent one) is cut in the same proportions; a class that is
    too rare for all goes to training first.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(examples.groups):
        members.setdefault(group, []).append(index)
    strata: dict[Any, list[list[int]]] = {}
    for indices in members.values():
        labels = Counter(str(examples.labels[i]) for i in indices)
        stratum = max(sorted(labels), key=labels.__getitem__) if stratify else None
        strata.setdefault(stratum, []).append(indices)
    generator = np.random.default_rng(seed)
    cut: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for stratum in sorted(strata, key=str):
        units = strata[stratum]
        total, done = sum(map(len, units)), 0
        for place in generator.permutation(len(units)):
            # A hair's breadth of tolerance: 0.8 of 10 is 8, and not 8.000000000000002.
            if done < (1 - validation - test) * total - 1e-9:
                name = "train"
            else:
                name = "validation" if done < (1 - test) * total - 1e-9 else "test"
            cut[name] += units[place]
            done += len(units[place])
    return {name: examples.take(sorted(indices)) for name, indices in cut.items()}


Rows = tuple[list[dict[str, Any]], Sequence[str] | None]  # and the names of a class label's numbers


def _open(task: TextTask, source: Source) -> dict[str, Rows]:
    """The splits that are there, by our names."""
    path = Path(source.data)
    found: dict[str, Rows]
    if path.is_file():
        found = {"train": (read_rows(path), None)}
    elif path.suffix in SUFFIXES:
        raise HeadlessError(f"there is no {path}")
    else:
        found = _open_dataset(task, source.data)
    for name, extra in (("validation", source.validation), ("test", source.test)):
        if extra is not None:
            found[name] = (read_rows(extra), None)
    return found


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


def _examples(
    task: TextTask,
    rows: list[dict[str, Any]],
    columns: list[str],
    names: Sequence[str] | None,
    group_column: str | None,
    place: str,
) -> Examples:
    texts = task.text_column.split("+")
    needed = [(column, "text_column") for column in texts]
    needed += [(task.pair_column, "text_pair_column")] if task.pair_column else []
    needed += [(task.label_column, "label_column")]
    needed += [(group_column, "group_column")] if group_column else []
    for column, option in needed:
        if column not in columns:
            raise HeadlessError(
                f"{place} has no column {column!r} (--{option}); "
                + suggestion(column, columns, "columns")
            )
    found = Examples([], None if task.pair_column is None else [], [], [])
    for number, row in enumerate(rows, start=1):
        value = row.get(task.label_column)
        if names is not None and (value is None or value == UNLABELLED):
            continue
        parts: list[Any] = [row.get(column) for column, option in needed if "text_" in option]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise HeadlessError(
                f"{place}, row {number}: an empty text, or none: mend it or leave it out"
            )
        found.labels.append(_label(task, value, names, f"{place}, row {number}"))
        found.texts.append(": ".join(row[column] for column in texts))
        if found.pairs is not None:
            found.pairs.append(parts[-1])
        own = "\t".join(parts)
        found.groups.append(own if group_column is None else str(row[group_column]))
    return found


def _label(task: TextTask, value: Any, names: Sequence[str] | None, place: str) -> Any:
    if task.regression:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise HeadlessError(
                f"{place}: {value!r} is no number: without --regression true it is a class"
            )
        return number
    if value is None or value == "":
        raise HeadlessError(f"{place}: no label: give one or leave the row out")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    names = names or task.classes
    if names and str(value) not in names and not isinstance(value, bool):
        try:
            return names[int(value)]
        except (ValueError, IndexError):
            return str(value)
    return str(value)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Numbers as numbers, words as words."""
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _check_classes(classes: tuple[str, ...], splits: dict[str, Examples]) -> None:
    seen = set(splits["train"].labels)
    if len(seen) < 2:
        raise HeadlessError(
            f"the training text has a single class, {next(iter(seen))!r}: nothing to learn"
        )
    for name, examples in splits.items():
        unknown = set(examples.labels) - (seen & set(classes))
        if unknown:
            raise HeadlessError(
                f"the label {min(unknown)!r} of {name} does not occur in the training text "
                f"(it has {', '.join(c for c in classes if c in seen)}); numbers to predict need "
                "--regression true"
            )
