"""What the values of a label column mean: a class, a number, or that there is no label.

GLUE writes −1 where the labels of a test split are secret, SNLI where the annotators did not agree;
spreadsheets leave the cell empty. Such an example is neither learnt nor scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headless.errors import HeadlessError

HIDDEN = -1
NEVER = "none"  # as the value of `unlabelled`: every value is a label
ENOUGH_CLASSES = 3  # classes 0, 1, 2, …: with so many, -1 is none; with fewer it may be "negative"


@dataclass(frozen=True)
class LabelColumn:
    """The labels of a split as they were read."""

    values: list[Any]
    names: Sequence[str] | None  #: of the classes 0, 1, 2, …; None where the values are the names
    place: str  #: for messages


def read_labels(
    columns: dict[str, LabelColumn], *, regression: bool, unlabelled: str | None
) -> dict[str, list[Any]]:
    """Class names or numbers of each split ("train" is one); None where an example has no label.

    `unlabelled` is the value that, besides none, stands for no label; "none": no value; None: -1,
    wherever it can be neither a class nor a number of the task.
    """
    if unlabelled is None:
        marker: str | int = HIDDEN
        marked_splits = _splits_with_hidden(columns, regression)
    else:
        marker = unlabelled
        marked_splits = set() if unlabelled == NEVER else set(columns)
    labels: dict[str, list[Any]] = {}
    for name, column in columns.items():
        labels[name] = [
            None
            if _is_absent(value) or (name in marked_splits and _is(value, marker))
            else _label(value, column.names, regression, f"{column.place}, row {row}")
            for row, value in enumerate(column.values, start=1)
        ]
    return labels


def _splits_with_hidden(columns: dict[str, LabelColumn], regression: bool) -> set[str]:
    """The splits in which -1 means that there is no label."""
    present = {
        name: [value for value in column.values if not _is_absent(value)]
        for name, column in columns.items()
    }
    only_hidden = {n for n, values in present.items() if all(_is(v, HIDDEN) for v in values)}
    known = [value for value in present["train"] if not _is(value, HIDDEN)]
    occurs = len(known) < len(present["train"])
    if regression:
        below = any((_number(value) or 0) < 0 for value in known)
        if occurs and known and not below:
            raise _ambiguous(columns["train"], "no other number below 0", "a number")
        return only_hidden if occurs or below else set(columns)
    names = columns["train"].names
    if names is not None:
        return set() if str(HIDDEN) in names else set(columns)
    if not occurs or not known:
        return set(columns)
    numbers = {_number(value) for value in known}
    if None in numbers:  # a number among words
        return set(columns)
    if numbers != set(range(len(numbers))):
        return only_hidden
    if len(numbers) < ENOUGH_CLASSES:
        classes = ", ".join(f"{number:g}" for number in sorted(n for n in numbers if n is not None))
        raise _ambiguous(columns["train"], classes, "a class")
    return set(columns)


def _ambiguous(column: LabelColumn, others: str, kind: str) -> HeadlessError:
    return HeadlessError(
        f"{column.place} has the labels -1, {others}: if -1 says that there is no label, give "
        f"--unlabelled=-1; if it is {kind}, --unlabelled {NEVER}"
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


def _is(value: Any, marker: str | int) -> bool:
    """Whether two values are the same number, or are written in the same way."""
    number = _number(value)
    return str(value) == str(marker) if number is None else number == _number(marker)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
