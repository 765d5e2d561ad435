"""One description of a table of numbers, for the page, the terminal, `compare.json` and pandas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headless.pages.numbers import MISSING, compact, decimals
from headless.pages.page import Cell, Column
from headless.reports.statistics import Estimate, estimate, leader


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

    def text(self, value: float | None) -> str:
        if value is None:
            return MISSING
        if self.digits == "compact":
            return compact(value * self.scale)
        return decimals(value * self.scale, self.digits)

    def interval(self, number: Estimate | None) -> str:
        """± the half width; empty for a single run, and where the runs do not vary."""
        if number is None or not number.half_width or number.half_width < 1e-9 * abs(number.mean):
            return ""
        return f"± {self.text(number.half_width)}"

    def signed(self, value: float) -> str:
        """A difference with its sign."""
        return ("+" if value > 0 else "") + self.text(value)


def percent(key: str, name: str, unit: str = "%", group: str = "") -> Quantity:
    """A share as a column: higher is better."""
    return Quantity(key, name, unit, group, 1, "higher", 100.0)


class Row:
    """What is compared: a number of every seed for each key."""

    label: str = ""
    about: str = ""
    index: int | None = None  # of its colour

    def by_seed(self, key: str) -> dict[int, float | None]:
        raise NotImplementedError

    def values(self, key: str) -> list[float | None]:
        return list(self.by_seed(key).values())

    def error(self, key: str) -> float | None:
        """Of a single run: the standard error over what its number is a mean of, where known."""
        return None

    def number(self, key: str) -> Estimate | None:
        """The mean over runs with its interval."""
        return estimate(self.values(key))

    def as_json(self, key: str) -> dict[str, Any] | None:
        """The number as plain values; None where it is not known."""
        if (number := self.number(key)) is None:
            return None
        return {
            "mean": number.mean,
            "half_width": number.half_width,
            "n": number.n,
            "values": self.values(key),
        }


@dataclass(frozen=True)
class Table:
    """Rows of one kind, and the columns that they have numbers for."""

    heading: Column  # of the rows' labels
    quantities: Sequence[Quantity]
    rows: Sequence[Any]
    can_lead: Callable[[Quantity], bool] = lambda quantity: True  # the best may be marked
    note: Callable[[Quantity, Any], str] = lambda quantity, row: ""  # below, beside the interval
    title: str = ""
    others: Sequence[Sequence[Cell | str]] = ()  # rows that no run stands behind

    def cells(self) -> tuple[list[Column], list[list[Cell | str]]]:
        """Mean and interval of each number; the best of a column is strong: see `leading`."""
        columns = [Column(q.name, q.unit, "right", q.group) for q in self.quantities]
        rows: list[list[Cell | str]] = [
            [Cell(row.label, row.about, swatch=row.index)] for row in self.rows
        ]
        for quantity in self.quantities:
            best = self.leading(quantity)
            for place, row in enumerate(self.rows):
                number = row.number(quantity.key)
                rows[place].append(
                    Cell(
                        quantity.text(number.mean if number else None),
                        self._detail(quantity, row, number) if number else "",
                        strong=place == best,
                    )
                )
        return [self.heading, *columns], [*rows, *map(list, self.others)]

    def _detail(self, quantity: Quantity, row: Row, number: Estimate) -> str:
        error = row.error(quantity.key) if number.n == 1 else None
        spread = f"s.e. {quantity.text(error)}" if error else quantity.interval(number)
        return " ".join(filter(None, (spread, self.note(quantity, row))))

    def leading(self, quantity: Quantity) -> int | None:
        """The place of the row that is ahead of every other by more than chance.

        Over seeds where all have several (`leader`), else by more than two standard errors of the
        difference; never where the digits that are shown do not tell them apart.
        """
        if quantity.better is None or len(self.rows) < 2 or not self.can_lead(quantity):
            return None
        numbers = [row.number(quantity.key) for row in self.rows]
        if all(number and number.n > 1 for number in numbers):
            place = leader([row.by_seed(quantity.key) for row in self.rows], quantity.better)
        else:
            place = self._ahead(quantity, numbers)
        texts = [quantity.text(number.mean if number else None) for number in numbers]
        return None if place is None or texts.count(texts[place]) > 1 else place

    def _ahead(self, quantity: Quantity, numbers: Sequence[Estimate | None]) -> int | None:
        sign = 1 if quantity.better == "lower" else -1
        ranked = []
        for place, (row, number) in enumerate(zip(self.rows, numbers, strict=True)):
            if number is None:
                return None
            error = row.error(quantity.key) if number.n == 1 else number.standard_error
            if error is None:
                return None
            ranked.append((sign * number.mean, error**2, place))
        (first, variance, place), (second, other_variance, _), *_ = sorted(ranked)
        return place if second - first > 2 * (variance + other_variance) ** 0.5 else None
