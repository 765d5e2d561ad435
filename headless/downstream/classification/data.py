"""A task's examples with their labels, and its splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.records import RECORDS, load_named, read_file
from headless.data.text_files import kind_of
from headless.downstream.classification.labels import LabelColumn, read_labels
from headless.downstream.classification.tasks import TASKS, TextTask, suggestion
from headless.downstream.options import Source
from headless.errors import HeadlessError

VALIDATION_NAMES = ("validation", "valid", "val", "dev")

Rows = tuple[list[dict[str, Any]], Sequence[str] | None]  # and the names of a class label's numbers


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, as they were read."""

    texts: list[str]  #: the first, or only, text of each example
    pairs: list[str] | None  #: the second ones; None for single sentences
    labels: list[Any]  #: class names, or numbers
    groups: list[str]  #: of which none may stand in two splits

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
        columns = (self.texts, self.pairs, self.labels, self.groups)
        return Examples(*(column and [column[i] for i in chosen] for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class LabelledText:
    """A task's examples."""

    #: "train" and "validation"; "test" where there is one with labels; "also": a second split to
    #: report
    splits: dict[str, Examples]
    classes: tuple[str, ...]  #: their names; empty for regression
    notes: tuple[str, ...] = ()  #: what a reader of the scores should know
    #: how many examples of a split have no label; they are in none of `splits`
    unlabelled: dict[str, int] = field(default_factory=dict)

    @property
    def reported(self) -> str:
        """The split whose scores count."""
        return "test" if "test" in self.splits else "validation"


def read_task(task: TextTask, source: Source) -> LabelledText:
    """Read the examples at `source.data` and cut what splits are missing."""
    data = str(source.data)
    tables = _open_rows(task, data)
    for name, extra in (("validation", source.validation), ("test", source.test)):
        if extra is not None:
            tables[name] = (_read_rows(Path(extra)), None)
    places = {n: n if task.dataset or len(tables) > 1 else data for n in tables}
    for name, (rows, _) in tables.items():
        _check_columns(task, rows, source.group_column, places[name])
    # A file of numbers beside a data set with class names means the same classes.
    shared = tables["train"][1] or task.classes or None
    columns = {
        name: LabelColumn([r.get(task.label_column) for r in rows], names or shared, places[name])
        for name, (rows, names) in tables.items()
    }
    labels = read_labels(columns, regression=task.regression, unlabelled=source.unlabelled)
    splits: dict[str, Examples] = {}
    unlabelled, notes = {}, []
    for name, (rows, _) in tables.items():
        examples = _examples(task, rows, labels[name], source.group_column, places[name])
        if hidden := len(rows) - len(examples):
            unlabelled[name] = hidden
            notes.append(_about_hidden(name, hidden, len(rows)))
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
    classes = () if task.regression else task.classes or _sorted(set(splits["train"].labels))
    if not task.regression:
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


def _open_rows(task: TextTask, data: str) -> dict[str, Rows]:
    """The splits that are there, by our names: "train" and, in a data set, others."""
    path = Path(data)
    if path.is_file():
        return {"train": (_read_rows(path), None)}
    if kind_of(path, RECORDS) is not None:
        raise HeadlessError(f"there is no {path}")
    try:
        loaded = load_named(data)
    except HeadlessError as error:
        line = " ".join(str(error.__cause__).split())[:200]
        hint = suggestion(data, list(TASKS), "tasks")
        raise HeadlessError(
            f"{data!r} is no task, no file, and datasets cannot load it ({line}); {hint}"
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
    rows: dict[str, Rows] = {}
    for ours, theirs in wanted.items():
        if theirs is not None and theirs in loaded:
            feature = loaded[theirs].features.get(task.label_column)
            rows[ours] = (loaded[theirs].to_list(), getattr(feature, "names", None))
    if "train" not in rows:
        raise HeadlessError(f"{data} has no split train (it has {', '.join(loaded)})")
    return rows


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if kind_of(path, RECORDS) is None:
        raise HeadlessError(f"{path} is none of {', '.join(RECORDS)}: rename it or convert it")
    rows = [record.fields for record in read_file(path)]
    if not rows:
        raise HeadlessError(f"{path} holds no rows with named columns")
    return rows


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
    examples = Examples([], None if task.pair_column is None else [], [], [])
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), start=1):
        if label is None:
            continue
        parts: list[Any] = [row.get(column) for column, _ in _text_columns(task)]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise HeadlessError(
                f"{place}, row {number}: an empty text, or none: mend it or leave it out"
            )
        group = "\t".join(parts) if group_column is None else str(row[group_column])
        if examples.pairs is not None:
            examples.pairs.append(parts.pop())
        examples.texts.append(": ".join(parts))
        examples.labels.append(label)
        examples.groups.append(group)
    return examples


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
