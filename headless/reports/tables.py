"""One description of a table of numbers, for the page, the terminal, `compare.json` and pandas."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headless.pages.numbers import MISSING, compact, decimals
from headless.pages.page import Cell, Column
from headless.reports.statistics import Estimate, difference, estimate

CHANCE = 2.0  # standard errors of a difference that may be chance
Cells = list[Cell | str]
Sheet = tuple[list[Column], list[Cells]]  # what is shown of a table


@dataclass(frozen=True)
class Quantity:
    """A column: a number of every row, and how it is shown."""

    key: str  # that the rows know it by
    name: str
    unit: str = ""
    group: str = ""  # a heading over several columns
    digits: int | Literal["compact"] = 3  # after the point, or a prefix
    better: Literal["lower", "higher"] | None = None
    scale: float = 1.0  # multiplies it for display

    @property
    def column(self) -> Column:
        return Column(self.name, self.unit, "right", self.group)

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """For display; with `signed` a difference."""
        if value is None:
            return MISSING
        shown, sign = value * self.scale, "+" if signed and value > 0 else ""
        return sign + (compact(shown) if self.digits == "compact" else decimals(shown, self.digits))

    def interval(self, number: Estimate | None) -> str:
        """± the half width; empty for a single run, and where the runs do not vary."""
        if number is None or not number.half_width or number.half_width < 1e-9 * abs(number.mean):
            return ""
        return f"± {self.text(number.half_width)}"


def percent(key: str, name: str, unit: str = "%", group: str = "") -> Quantity:
    """A share as a column: higher is better."""
    return Quantity(key, name, unit, group, 1, "higher", 100.0)


class Row:
    """What is compared: a number of every run for each key."""

    label: str
    about: str
    index: int | None  # of its colour
    seeds: Sequence[int]  # of the runs

    def values(self, key: str) -> list[float | None]:
        """Of each run."""
        raise NotImplementedError

    def error(self, key: str) -> float | None:
        """Of a single run: the standard error over what its number is a mean of, where known."""
        return None

    def by_seed(self, key: str) -> dict[int, float | None]:
        return dict(zip(self.seeds, self.values(key), strict=True))

    def number(self, key: str) -> Estimate | None:
        """The mean over runs with its interval."""
        return estimate(self.values(key))

    def as_json(self, key: str) -> dict[str, Any] | None:
        """The number as plain values; None where it is not known."""
        if (number := self.number(key)) is None:
            return None
        return vars(number) | {"values": self.values(key)}


@dataclass
class Scores(Row):
    """A row of numbers that are known: for each key, and for each of its errors, one a seed."""

    label: str
    seeds: list[int]
    scores: dict[str, list[float | None]]
    errors: dict[str, list[float | None]] = field(default_factory=dict)
    about: str = ""
    index: int | None = None

    def values(self, key: str) -> list[float | None]:
        return self.scores.get(key, [None] * len(self.seeds))

    def error(self, key: str) -> float | None:
        return next(filter(None, self.errors.get(key, [])), None)


@dataclass(frozen=True)
class Table:
    """Rows of one kind, and the columns that they have numbers for."""

    heading: Column  # of the rows' labels
    quantities: Sequence[Quantity]
    rows: Sequence[Any]
    can_lead: Callable[[Quantity], bool] = lambda quantity: True  # the best may be marked
    note: Callable[[Quantity, Any], str] = lambda quantity, row: ""  # below, beside the interval
    title: str = ""
    others: Sequence[Cells] = ()  # rows that no run stands behind

    def cells(self) -> Sheet:
        """Mean and interval of each number; the best of a column is strong: see `leading`."""
        rows: list[Cells] = [[Cell(row.label, row.about, swatch=row.index)] for row in self.rows]
        for quantity in self.quantities:
            best = self.leading(quantity)
            for row, cells in zip(self.rows, rows, strict=True):
                number = row.number(quantity.key)
                text = quantity.text(number.mean if number else None)
                detail = self._detail(quantity, row, number) if number else ""
                cells.append(Cell(text, detail, strong=row is best))
        return [self.heading, *(q.column for q in self.quantities)], [*rows, *self.others]

    def _detail(self, quantity: Quantity, row: Row, number: Estimate) -> str:
        error = row.error(quantity.key) if number.n == 1 else None
        spread = f"s.e. {quantity.text(error)}" if error else quantity.interval(number)
        return " ".join(filter(None, (spread, self.note(quantity, row))))

    def leading(self, quantity: Quantity) -> Row | None:
        """The row that is ahead of every other by more than chance.

        That is by more than the interval of the difference over seeds or, of single runs, by more
        than two of its standard errors; and by the digits that are shown.
        """
        if quantity.better is None or len(self.rows) < 2 or not self.can_lead(quantity):
            return None
        ahead = (
            row
            for row in self.rows
            if all(other is row or _is_ahead(row, other, quantity) for other in self.rows)
        )
        return next(ahead, None)


def _is_ahead(row: Row, other: Row, quantity: Quantity) -> bool:
    key, numbers = quantity.key, [one.number(quantity.key) for one in (row, other)]
    change = difference(row.by_seed(key), other.by_seed(key))
    texts = {quantity.text(number.mean if number else None) for number in numbers}
    if change is None or len(texts) < 2:
        return False
    width = change.half_width
    if width is None:
        known = zip((row, other), numbers, strict=True)
        errors = [r.error(key) if n.n == 1 else n.standard_error for r, n in known if n]
        if None in errors:
            return False
        width = CHANCE * math.hypot(*filter(None, errors))
    return (1 if quantity.better == "higher" else -1) * change.mean > width
