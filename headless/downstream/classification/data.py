"""A task's examples with their labels, and its splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headless.downstream.classification.labels import LabelColumn, read_labels
from headless.downstream.classification.rows import open_rows, read_rows
from headless.downstream.classification.tasks import TextTask, suggestion
from headless.errors import HeadlessError


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

    @property
    def sha256(self) -> str:
        """Of texts and labels: scores on another text are no scores on this one."""
        plain = json.dumps([self.texts, self.pairs, self.labels])
        return hashlib.sha256(plain.encode()).hexdigest()

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
        unlabelled: how many examples of a split have no label; they are in none of `splits`.
    """

    splits: dict[str, Examples]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unlabelled: dict[str, int] = field(default_factory=dict)

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
        unlabelled: see `read_labels`.
    """

    data: str
    validation: Path | None = None
    test: Path | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0
    group_column: str | None = None
    unlabelled: str | None = None

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
    found = open_rows(task, source.data)
    for name, extra in (("validation", source.validation), ("test", source.test)):
        if extra is not None:
            found[name] = (read_rows(extra), None)
    places = {n: n if task.dataset or len(found) > 1 else source.data for n in found}
    for name, (rows, _) in found.items():
        _check_columns(task, rows, source.group_column, places[name])
    # A file of numbers beside a data set with class names means the same classes.
    shared = found["train"][1] or task.classes or None
    columns = {
        name: LabelColumn([r.get(task.label_column) for r in rows], names or shared, places[name])
        for name, (rows, names) in found.items()
    }
    labels = read_labels(columns, regression=task.regression, unlabelled=source.unlabelled)
    splits: dict[str, Examples] = {}
    unlabelled, notes = {}, []
    for name, (rows, _) in found.items():
        examples = _examples(task, rows, labels[name], source.group_column, places[name])
        if hidden := len(rows) - len(examples):
            unlabelled[name] = hidden
            notes.append(_about_hidden(name, hidden, len(rows)))
        if len(examples):
            splits[name] = examples
    if "train" not in splits:
        raise HeadlessError(f"{source.data} has no labelled example to train on")
    if "validation" not in splits:
        share = 0.0 if "test" in found else source.test_fraction
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
        return LabelledText(splits, (), tuple(notes), unlabelled)
    classes = task.classes or _sorted(set(splits["train"].labels))
    _check_classes(classes, splits)
    return LabelledText(splits, classes, tuple(notes), unlabelled)


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


def _about_hidden(name: str, hidden: int, rows: int) -> str:
    if hidden == rows:
        return f"none of the {rows:,} examples of {name} has a label: it has no score"
    use = "learnt" if name == "train" else "scored"
    return (
        f"{hidden:,} of {rows:,} in {name} have no label and are left out: the other "
        f"{rows - hidden:,} are {use}"
    )


def _text_columns(task: TextTask) -> list[tuple[str, str]]:
    """The columns that hold text, each with the option that names it."""
    columns = [(column, "text_column") for column in task.text_column.split("+")]
    return columns + ([(task.pair_column, "text_pair_column")] if task.pair_column else [])


def _check_columns(
    task: TextTask, rows: list[dict[str, Any]], group_column: str | None, place: str
) -> None:
    columns = list(dict.fromkeys(c for r in rows[:100] for c in r))
    needed = [*_text_columns(task), (task.label_column, "label_column")]
    needed += [(group_column, "group_column")] if group_column else []
    for column, option in needed:
        if column not in columns:
            raise HeadlessError(
                f"{place} has no column {column!r} (--{option}); "
                + suggestion(column, columns, "columns")
            )


def _examples(
    task: TextTask,
    rows: list[dict[str, Any]],
    labels: list[Any],
    group_column: str | None,
    place: str,
) -> Examples:
    """The rows that have a label."""
    found = Examples([], None if task.pair_column is None else [], [], [])
    texts = task.text_column.split("+")
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), start=1):
        if label is None:
            continue
        parts: list[Any] = [row.get(column) for column, _ in _text_columns(task)]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise HeadlessError(
                f"{place}, row {number}: an empty text, or none: mend it or leave it out"
            )
        found.labels.append(label)
        found.texts.append(": ".join(row[column] for column in texts))
        if found.pairs is not None:
            found.pairs.append(parts[-1])
        own = "\t".join(parts)
        found.groups.append(own if group_column is None else str(row[group_column]))
    return found


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
