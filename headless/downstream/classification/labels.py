"""What the values of a label column mean: a class, a number, or that there is no label.

GLUE writes −1 where the labels of a test split are secret, SNLI where the annotators did not agree;
spreadsheets leave the cell empty. Such an example is neither learnt nor scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headless.errors import HeadlessError

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
