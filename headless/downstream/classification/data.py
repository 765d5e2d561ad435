"""A task's labelled examples, in splits.

GLUE writes −1 where the labels of a test split are secret, SNLI where the annotators did not agree;
spreadsheets leave the cell empty. Such an example is neither learnt nor scored.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from headless.data.records import RECORDS, load_named, read_file
from headless.data.text_files import kind_of
from headless.downstream.classification.tasks import TASKS, TextTask
from headless.downstream.options import Source
from headless.errors import HeadlessError, one_line, suggestion

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class Table:
    """What was read of a split."""

    rows: DataFrame
    names: Sequence[str] | None  #: of a class label's numbers
    place: str  #: for messages


@dataclass(frozen=True)
class LabelledText:
    """A task's examples."""

    #: "train", "validation"; perhaps "test", and "also", a second split to report. Columns: text;
    #: label (a class's name, or a number); of pairs: pair; group, which no two splits share
    splits: dict[str, DataFrame]
    classes: tuple[str, ...]  #: empty for regression
    notes: tuple[str, ...] = ()  #: what a reader of the scores should know
    #: how many further examples of a split have no label
    unlabelled: dict[str, int] = field(default_factory=dict)

    @property
    def reported(self) -> str:
        return "test" if "test" in self.splits else "validation"


def read_task(task: TextTask, source: Source) -> LabelledText:
    """Read the examples at `source.data` and cut what splits are missing."""
    data = str(source.data)
    tables = _read_tables(task, data, source)
    # A file of numbers beside a data set with class names means the same classes.
    shared = tables["train"].names or task.classes or None
    columns = {
        name: LabelColumn(
            table.rows[task.label_column].tolist(), table.names or shared, table.place
        )
        for name, table in tables.items()
    }
    labels = read_labels(columns, regression=task.regression, unlabelled=source.unlabelled)
    splits: dict[str, DataFrame] = {}
    unlabelled, notes = {}, []
    for name, table in tables.items():
        examples = _examples(task, table, labels[name], source.group_column)
        if without := len(table.rows) - len(examples):
            unlabelled[name] = without
            notes.append(_note_on_unlabelled(name, without, len(table.rows)))
        if len(examples):
            splits[name] = examples
    if "train" not in splits:
        raise HeadlessError(f"{data} has no labelled example to train on")
    if "validation" not in splits:
        test = 0.0 if "test" in tables else source.test_fraction
        shares = (source.validation_fraction, test, source.split_seed)
        cut = split(splits["train"], *shares, stratify=not task.regression)
        splits |= {name: part for name, part in cut.items() if len(part)}
        if "validation" not in splits or not len(cut["train"]):
            raise HeadlessError(f"{data} has too few examples to cut: give --validation FILE")
    if "test" not in splits:
        notes.append("no labelled test split: scores are those of the validation split")
    classes = () if task.regression else task.classes or _sorted(set(splits["train"]["label"]))
    if not task.regression:
        _check_classes(classes, splits)
    return LabelledText(splits, classes, tuple(notes), unlabelled)


def sha256(examples: DataFrame) -> str:
    """Of texts and labels."""
    columns = [examples.get(name) for name in ("text", "pair", "label")]
    plain = json.dumps([None if column is None else column.tolist() for column in columns])
    return hashlib.sha256(plain.encode()).hexdigest()


def split(
    examples: DataFrame, validation: float, test: float, seed: int, *, stratify: bool
) -> dict[str, DataFrame]:
    """Cut into "train", "validation" and "test"; groups stay whole.

    With `stratify` every class (a group has its most frequent one) is cut in the same proportions;
    a class that is too rare for all goes to training first.
    """
    strata: dict[str, list[Any]] = {}
    for indices in examples.groupby("group", sort=False).indices.values():
        labels = Counter(str(label) for label in examples["label"].iloc[indices])
        stratum = max(sorted(labels), key=labels.__getitem__) if stratify else ""
        strata.setdefault(stratum, []).append(indices)
    generator = np.random.default_rng(seed)
    cut: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for stratum in sorted(strata):
        units = strata[stratum]
        total, done = sum(map(len, units)), 0
        for place in generator.permutation(len(units)):
            # A hair's breadth of tolerance: 0.8 of 10 is 8, and not 8.000000000000002.
            if done < (1 - validation - test) * total - 1e-9:
                name = "train"
            else:
                name = "validation" if done < (1 - test) * total - 1e-9 else "test"
            cut[name] += units[place].tolist()
            done += len(units[place])
    return {name: examples.iloc[sorted(indices)] for name, indices in cut.items()}


def _read_tables(task: TextTask, data: str, source: Source) -> dict[str, Table]:
    """The rows of "train" and, in a data set, of "validation", "also" and "test"."""
    if kind_of(Path(data), RECORDS) is not None or Path(data).is_file():
        tables = {"train": _read_file(Path(data))}
    else:
        tables = _read_data_set(task, data)
    for name, extra in (("validation", source.validation), ("test", source.test)):
        if extra is not None:
            tables[name] = _read_file(Path(extra))
    needed = [(column, "text_column") for column in task.text_column.split("+")]
    needed += [(task.pair_column, "text_pair_column")] if task.pair_column else []
    needed += [(task.label_column, "label_column")]
    needed += [(source.group_column, "group_column")] if source.group_column else []
    for table in tables.values():
        columns = table.rows.columns.tolist()
        for column, option in needed:
            if column not in columns:
                raise HeadlessError(
                    f"{table.place} has no column {column!r} (--{option}); "
                    + suggestion(column, columns, "columns")
                )
    return tables


def _read_data_set(task: TextTask, data: str) -> dict[str, Table]:
    try:
        loaded = load_named(data)
    except HeadlessError as error:
        line = one_line(error.__cause__, 200)
        hint = suggestion(data, TASKS, "tasks")
        raise HeadlessError(
            f"{data!r} is no task, no file, and datasets cannot load it ({line}); {hint}"
        ) from error
    if not isinstance(loaded, dict):
        loaded = {"train": loaded}
    if "train" not in loaded:
        raise HeadlessError(f"{data} has no split train (it has {', '.join(loaded)})")
    names = [task.validation] if task.validation else VALIDATION_NAMES
    validation = next((name for name in names if name in loaded), None)
    wanted = {"train": "train", "validation": validation, "also": task.also, "test": task.test}
    tables = {}
    for name, split_name in wanted.items():
        if split_name in loaded:
            feature = loaded[split_name].features.get(task.label_column)
            rows = DataFrame(loaded[split_name].to_list(), dtype=object)
            tables[name] = Table(rows, getattr(feature, "names", None), f"{name} of {data}")
    return tables


def _read_file(path: Path) -> Table:
    if not path.is_file():
        raise HeadlessError(f"there is no {path}")
    if kind_of(path, RECORDS) is None:
        raise HeadlessError(f"{path} is none of {', '.join(RECORDS)}: rename it or convert it")
    rows = DataFrame([record.fields for record in read_file(path)], dtype=object)
    if rows.empty:
        raise HeadlessError(f"{path} holds no rows with named columns")
    return Table(rows, None, str(path))


def _note_on_unlabelled(name: str, count: int, rows: int) -> str:
    if count == rows:
        return f"none of the {rows:,} examples of {name} has a label: it has no score"
    use = "learnt" if name == "train" else "scored"
    return (
        f"{count:,} of {rows:,} in {name} have no label and are left out: the other "
        f"{rows - count:,} are {use}"
    )


def _examples(
    task: TextTask, table: Table, labels: list[Any], group_column: str | None
) -> DataFrame:
    """The rows that have a label, as `LabelledText` says."""
    rows = table.rows[[label is not None for label in labels]]
    first = task.text_column.split("+")
    texts = rows[[*first, task.pair_column] if task.pair_column else first]
    has_text = texts.map(lambda text: isinstance(text, str) and bool(text.strip())).all(axis=1)
    if not has_text.all():
        raise HeadlessError(
            f"{table.place}, row {has_text.idxmin() + 1}: an empty text, or none: mend it or leave "
            "it out"
        )
    examples = {
        "text": texts[first].agg(": ".join, axis=1).tolist() if len(rows) else [],
        "label": [label for label in labels if label is not None],
    }
    if task.pair_column:
        examples["pair"] = texts[task.pair_column].tolist()
    groups = (
        map("\t".join, texts.to_numpy()) if group_column is None else map(str, rows[group_column])
    )
    examples["group"] = list(groups)
    return DataFrame(examples, dtype=object)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Numbers as numbers, words as words."""
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _check_classes(classes: tuple[str, ...], splits: dict[str, DataFrame]) -> None:
    learnt = set(splits["train"]["label"])
    if len(learnt) < 2:
        raise HeadlessError(
            f"the training text has a single class, {next(iter(learnt))!r}: nothing to learn"
        )
    for name, examples in splits.items():
        unknown = set(examples["label"]) - (learnt & set(classes))
        if unknown:
            raise HeadlessError(
                f"the label {min(unknown)!r} of {name} does not occur in the training text "
                f"(it has {', '.join(c for c in classes if c in learnt)}); numbers to predict need "
                "--regression true"
            )


HIDDEN = "-1"
NEVER = "none"  # as the value of `unlabelled`: every value is a label


@dataclass(frozen=True)
class LabelColumn:
    """The labels of a split as they were read."""

    values: list[Any]
    names: Sequence[str] | None  #: of the classes 0, 1, 2, …; None where the values are the names
    place: str  #: for messages


def read_labels(
    columns: dict[str, LabelColumn], *, regression: bool, unlabelled: str | None
) -> dict[str, list[Any]]:
    """Class names or numbers of each split; None where an example has no label.

    `unlabelled` is the value that, besides none, stands for no label; "none": no value; None: -1
    where the classes have names. Elsewhere -1 is a label among negative numbers, and beside 1.
    """
    if unlabelled is None:
        named = all(column.names and HIDDEN not in column.names for column in columns.values())
        unlabelled = HIDDEN if named else NEVER
        if not named:
            _refuse_doubtful(columns)
    return {
        name: [
            None
            if _is_absent(value) or (unlabelled != NEVER and _is(value, unlabelled))
            else _label(value, column.names, regression, f"{column.place}, row {row}")
            for row, value in enumerate(column.values, start=1)
        ]
        for name, column in columns.items()
    }


def _refuse_doubtful(columns: dict[str, LabelColumn]) -> None:
    """Refuse -1 beside labels that do not tell whether it is one."""
    for column in columns.values():
        if any(_is(value, HIDDEN) for value in column.values):
            break
    else:
        return
    values = {v for c in columns.values() for v in c.values if not _is_absent(v)}
    others = {value: _number(value) for value in values if not _is(value, HIDDEN)}
    is_signed = any(number is not None and number < 0 for number in others.values())
    if not is_signed and set(others.values()) != {1.0}:
        raise HeadlessError(
            f"{column.place} has the label -1: if it says that there is no label, give "
            f"--unlabelled=-1; if it is a label, --unlabelled {NEVER}"
        )


def _label(value: Any, names: Sequence[str] | None, regression: bool, place: str) -> Any:
    number = _number(value)
    if regression:
        if number is None or not math.isfinite(number):
            raise HeadlessError(
                f"{place}: {value!r} is no number: without --regression true it is a class"
            )
        return number
    integer = int(number) if number is not None and number.is_integer() else None
    if names is None:
        return str(integer if isinstance(value, float) and integer is not None else value)
    # A number is a place among the names, even where they are numbers themselves ("1", "2", …).
    if (isinstance(value, str) and value in names) or isinstance(value, bool):
        return str(value)
    if integer is None or not 0 <= integer < len(names):
        raise HeadlessError(
            f"{place}: the label {value!r} is none of {', '.join(names)}, nor the place of one "
            f"(0 to {len(names) - 1})"
        )
    return names[integer]


def _is_absent(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is(value: Any, marker: str) -> bool:
    """Whether two values are the same number, or are written in the same way."""
    number = _number(value)
    return str(value) == marker if number is None else number == _number(marker)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
