"""Claims as rows of data: a number of the finding, a criterion of it, and words made from both.

    cosine = values("", "post")
    Claim("Ethayarajh 2019", "the last states are the most anisotropic",
          cosine.last >= cosine.largest.less(0.02))

A row is asked of the model and of its random twins alike; the words are generated from the test,
so that what is said and what is tested cannot differ.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headless.analysis.record import Answer, Finding, Kind

COMPARISONS = {
    ">": ("above", operator.gt),
    ">=": ("at least", operator.ge),
    "<": ("below", operator.lt),
    "<=": ("at most", operator.le),
}
# Words and functions: `values("", "post").largest`.
REDUCERS: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "only": ("", lambda x: x[0]),  # of a measure that one place has
    "first": ("first", lambda x: x[0]),
    "last": ("last", lambda x: x[-1]),
    "smallest": ("smallest", np.min),
    "largest": ("largest", np.max),
    "largest_size": ("largest size of", lambda x: np.abs(x).max()),  # without the sign
    "median": ("median", np.median),
    "mean": ("mean", np.mean),
    # 0 at the first place, 1 at the last
    "peak": ("depth of the largest", lambda x: x.argmax() / max(len(x) - 1, 1)),
}


@dataclass(frozen=True)
class Criterion:
    """A verdict on a finding (None: it cannot be asked) and the same in words, with numbers."""

    verdict: Callable[[Finding], bool | None]
    words: Callable[[Finding], str]

    def __and__(self, other: "Criterion") -> "Criterion":
        return self._joined(all, "; ", other)

    def __or__(self, other: "Criterion") -> "Criterion":
        return self._joined(any, "; or ", other)

    def _joined(self, join: Callable[[Any], bool], between: str, other: "Criterion") -> "Criterion":
        def verdict(finding: Finding) -> bool | None:
            verdicts = self.verdict(finding), other.verdict(finding)
            return None if None in verdicts else join(verdicts)

        return Criterion(verdict, lambda f: f"{self.words(f)}{between}{other.words(f)}")

    def given(self, condition: "Criterion", otherwise: str = "") -> "Criterion":
        """The same, asked only where a condition holds; `otherwise` says then what it takes."""

        def holds(finding: Finding) -> bool:
            return bool(condition.verdict(finding))

        return Criterion(
            lambda f: self.verdict(f) if holds(f) else None,
            lambda f: otherwise if otherwise and not holds(f) else self.words(f),
        )


@dataclass(frozen=True, eq=False)
class Number:
    """A number of a finding, with words; comparisons with a bound or another are criteria."""

    words: Callable[[Finding], str] | str  #: before the number
    get: Callable[[Finding], float | None]  #: None or NaN: not known
    form: str = ".2f"  #: of the number in text; one with "%" is a share

    def text(self, finding: Finding) -> str:
        """Words and number."""
        value = self.get(finding)
        words = self.words if isinstance(self.words, str) else self.words(finding)
        known = value is not None and not np.isnan(value)
        return f"{words} {format(value, self.form) if known else 'unknown'}"

    def formed(self, form: str) -> "Number":
        """The same with another form of the number."""
        return replace(self, form=form)

    def less(self, amount: float) -> "Number":
        """The same minus an amount."""
        return self._changed(lambda f: f"{self.text(f)} less {amount:g}:", 1.0, -amount)

    def __rmul__(self, factor: float) -> "Number":
        return self._changed(lambda f: f"{factor:g} of the {self.text(f)}:", factor, 0.0)

    def _changed(self, words: Callable[[Finding], str], factor: float, add: float) -> "Number":
        def changed(finding: Finding) -> float | None:
            value = self.get(finding)
            return None if value is None else factor * value + add

        return Number(words, changed, self.form)

    def __gt__(self, bound: "Number | float") -> Criterion:
        return self._compared(">", bound)

    def __ge__(self, bound: "Number | float") -> Criterion:
        return self._compared(">=", bound)

    def __lt__(self, bound: "Number | float") -> Criterion:
        return self._compared("<", bound)

    def __le__(self, bound: "Number | float") -> Criterion:
        return self._compared("<=", bound)

    def _compared(self, sign: str, bound: "Number | float") -> Criterion:
        how, holds = COMPARISONS[sign]

        def verdict(finding: Finding) -> bool | None:
            against = bound.get(finding) if isinstance(bound, Number) else bound
            value = self.get(finding)
            if value is None or against is None or np.isnan(value) or np.isnan(against):
                return None
            return bool(holds(value, against))

        def words(finding: Finding) -> str:
            form = ".0%" if "%" in self.form else "g"
            limit = bound.text(finding) if isinstance(bound, Number) else format(bound, form)
            return f"{self.text(finding)}, {how} {limit}"

        return Criterion(verdict, words)


@dataclass(frozen=True)
class Values:
    """A measure's values at places of some kinds [P]; each of `REDUCERS` makes a `Number`."""

    get: Callable[[Finding], np.ndarray]
    label: Callable[[Finding], str]  #: in words
    #: a number is not known where one of the values is not finite; else it is of those that are
    whole: bool = True

    def reduced(self, words: str, reduce: Callable[[np.ndarray], Any]) -> Number:
        """By a function that is never called with none."""

        def number(finding: Finding) -> float | None:
            found = self.get(finding)
            finite = found[np.isfinite(found)]
            if not len(finite) or (self.whole and len(finite) < len(found)):
                return None
            return float(reduce(finite))

        return Number(lambda f: f"{words} {self.label(f)}".strip(), number)

    @property
    def known(self) -> "Values":
        """Those that are finite."""
        return replace(self, whole=False)

    def __getattr__(self, name: str) -> Number:
        if name not in REDUCERS:
            raise AttributeError(name)
        return self.reduced(*REDUCERS[name])

    @property
    def count(self) -> Number:
        """How many are finite; 0 of none."""
        return Number(
            lambda f: f"number of {self.label(f)}",
            lambda f: int(np.isfinite(self.get(f)).sum()),
            "d",
        )

    def __sub__(self, other: "Values") -> "Values":
        return Values(
            lambda f: self.get(f) - other.get(f), lambda f: f"{self.label(f)} less {other.label(f)}"
        )


def values(measure: str, *kinds: str) -> Values:
    """A measure's values, or those of its null by the null's name; at all places for no kinds."""
    return Values(lambda f: f.values(measure, *kinds), lambda f: f.label(measure))


def share(words: str, inside: Callable[..., np.ndarray], *measures: str) -> Number:
    """Of the places where the first measure is finite, the share where `inside` of all is true."""

    def get(finding: Finding) -> float | None:
        found = [finding.values(measure) for measure in measures]
        known = np.isfinite(found[0])
        return float(np.mean(inside(*(one[known] for one in found)))) if known.any() else None

    return Number(words, get, ".0%")


@dataclass(frozen=True)
class Claim:
    """What a source says of models: a row that is asked of each; see `record.Answer`.

    `asked` says whether it is a claim of this model at all: else it is not shown.
    """

    source: str
    text: str
    criterion: Criterion
    kind: Kind = "literature"
    of_text: bool = False
    contested: str = ""
    asked: Callable[[Finding], bool] = lambda finding: True

    def answer(self, finding: Finding) -> Answer:
        """What this model does."""
        verdict, words = self.criterion.verdict(finding), self.criterion.words(finding)
        marks = (self.kind, self.of_text, self.contested)
        return Answer(self.source, self.text, verdict, words, *marks)
