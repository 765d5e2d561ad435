"""A task's labelled examples, in splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from headless.data.records import RECORDS, load_named, read_file
from headless.data.text_files import kind_of
from headless.downstream.classification.labels import LabelColumn, read_labels
from headless.downstream.classification.tasks import TASKS, TextTask
from headless.downstream.options import Source
from headless.errors import HeadlessError, one_line, suggestion

VALIDATION_NAMES = ("validation", "valid", "val", "dev")

Table = tuple[DataFrame, Sequence[str] | None]  # rows; names of a class label's numbers


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
    tables = _read_tables(task, data)
    for name, extra in (("validation", source.validation), ("test", source.test)):
        if extra is not None:
            tables[name] = (_read_file(Path(extra)), None)
    places = {n: n if task.dataset or len(tables) > 1 else data for n in tables}
    for name, (rows, _) in tables.items():
        _check_columns(task, rows, source.group_column, places[name])
    # A file of numbers beside a data set with class names means the same classes.
    shared = tables["train"][1] or task.classes or None
    columns = {
        name: LabelColumn(rows[task.label_column].tolist(), names or shared, places[name])
        for name, (rows, names) in tables.items()
    }
    labels = read_labels(columns, regression=task.regression, unlabelled=source.unlabelled)
    splits: dict[str, DataFrame] = {}
    unlabelled, notes = {}, []
    for name, (rows, _) in tables.items():
        examples = _examples(task, rows, labels[name], source.group_column, places[name])
        if without := len(rows) - len(examples):
            unlabelled[name] = without
            notes.append(_note_on_unlabelled(name, without, len(rows)))
        if len(examples):
            splits[name] = examples
    if "train" not in splits:
        raise HeadlessError(f"{data} has no labelled example to train on")
    if "validation" not in splits:
        test = 0.0 if "test" in tables else source.test_fraction
        cut = split(
            splits["train"],
            source.validation_fraction,
            test,
            source.split_seed,
            stratify=not task.regression,
        )
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
    members: dict[str, list[int]] = {}
    for index, group in enumerate(examples["group"]):
        members.setdefault(group, []).append(index)
    strata: dict[Any, list[list[int]]] = {}
    for indices in members.values():
        labels = Counter(str(label) for label in examples["label"].iloc[indices])
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
    return {name: examples.iloc[sorted(indices)] for name, indices in cut.items()}


def _read_tables(task: TextTask, data: str) -> dict[str, Table]:
    """The rows of "train" and, in a data set, of "validation", "also" and "test"."""
    path = Path(data)
    if path.is_file():
        return {"train": (_read_file(path), None)}
    if kind_of(path, RECORDS) is not None:
        raise HeadlessError(f"there is no {path}")
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
    names = [task.validation] if task.validation else VALIDATION_NAMES
    splits = {
        "train": "train",
        "validation": next((n for n in names if n in loaded), None),
        "also": task.also,
        "test": task.test,
    }
    if "train" not in loaded:
        raise HeadlessError(f"{data} has no split train (it has {', '.join(loaded)})")
    tables: dict[str, Table] = {}
    for name, split_name in splits.items():
        if split_name is not None and split_name in loaded:
            feature = loaded[split_name].features.get(task.label_column)
            rows = DataFrame(loaded[split_name].to_list(), dtype=object)
            tables[name] = (rows, getattr(feature, "names", None))
    return tables


def _read_file(path: Path) -> DataFrame:
    if kind_of(path, RECORDS) is None:
        raise HeadlessError(f"{path} is none of {', '.join(RECORDS)}: rename it or convert it")
    rows = DataFrame([record.fields for record in read_file(path)], dtype=object)
    if rows.empty:
        raise HeadlessError(f"{path} holds no rows with named columns")
    return rows


def _note_on_unlabelled(name: str, count: int, rows: int) -> str:
    if count == rows:
        return f"none of the {rows:,} examples of {name} has a label: it has no score"
    use = "learnt" if name == "train" else "scored"
    return (
        f"{count:,} of {rows:,} in {name} have no label and are left out: the other "
        f"{rows - count:,} are {use}"
    )


def _text_columns(task: TextTask) -> list[tuple[str, str]]:
    """Each column of text, and the option that names it."""
    columns = [(column, "text_column") for column in task.text_column.split("+")]
    return columns + ([(task.pair_column, "text_pair_column")] if task.pair_column else [])


def _check_columns(task: TextTask, rows: DataFrame, group_column: str | None, place: str) -> None:
    columns = rows.columns.tolist()
    needed = [*_text_columns(task), (task.label_column, "label_column")]
    needed += [(group_column, "group_column")] if group_column else []
    for column, option in needed:
        if column not in columns:
            raise HeadlessError(
                f"{place} has no column {column!r} (--{option}); "
                + suggestion(column, columns, "columns")
            )


def _examples(
    task: TextTask, rows: DataFrame, labels: list[Any], group_column: str | None, place: str
) -> DataFrame:
    """The rows that have a label, as `LabelledText` says."""
    rows = rows[[label is not None for label in labels]]
    texts = rows[[column for column, _ in _text_columns(task)]]
    has_text = texts.map(lambda text: isinstance(text, str) and bool(text.strip())).all(axis=1)
    if not has_text.all():
        raise HeadlessError(
            f"{place}, row {has_text.idxmin() + 1}: an empty text, or none: mend it or leave it out"
        )
    parts = texts.to_numpy().tolist()
    examples = {
        "text": [": ".join(row[:-1] if task.pair_column else row) for row in parts],
        "label": [label for label in labels if label is not None],
    }
    if task.pair_column:
        examples["pair"] = [row[-1] for row in parts]
    groups = ["\t".join(row) for row in parts]
    examples["group"] = groups if group_column is None else rows[group_column].map(str).tolist()
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
