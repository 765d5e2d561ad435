"""A measurement is a value at a place, beside its null: what every analysis gives back.

Keys of `analysis.json`, tables, figures, films and claims all derive from `Series` and payloads;
nothing else knows how a key is spelled.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

Kind = Literal["literature", "own"]
STREAM = ("embed", "post", "norm_f")  # the residual stream: one line through three kinds


@dataclass(frozen=True)
class Place:
    """Where a number was measured: "post/03", "q/07", "03", "embedding"; "" is the whole model."""

    kind: str = ""
    block: int | None = None

    def __str__(self) -> str:
        return _key(self.kind, "" if self.block is None else f"{self.block:02d}")

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that is spelled so."""
        kind, _, block = text.rpartition("/")
        return cls(kind, int(block)) if block.isdigit() and len(block) > 1 else cls(text)


MODEL = Place()


@dataclass(frozen=True)
class Measure:
    """What was measured; with "_" before its name, as with the null's, for figures and claims."""

    name: str  #: the end of its keys; "" where the place alone names it
    words: str = ""  #: for legends, tables and criteria
    null: str = ""  #: the name of the same number under the null model; "": it has none

    @property
    def label(self) -> str:
        """The words, or the name as words."""
        return self.words or self.name.replace("_", " ")


@dataclass(frozen=True)
class Series:
    """One measure over places [P], in the order of the computation, and its null there.

    With `per_kind` its scalars are means over the blocks, one a kind of place; else one a place.
    """

    measure: Measure
    places: tuple[Place, ...]
    value: np.ndarray
    null: np.ndarray | None = None
    per_kind: bool = False

    def at(self, *kinds: str) -> "Series":
        """The part at places of these kinds; all of it for none."""
        keep = [i for i, place in enumerate(self.places) if not kinds or place.kind in kinds]
        null = None if self.null is None else self.null[keep]
        places = tuple(self.places[i] for i in keep)
        return replace(self, places=places, value=self.value[keep], null=null)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the places, in their order."""
        return tuple(dict.fromkeys(place.kind for place in self.places))

    def numbers(self) -> Iterable[tuple[str, float]]:
        """Key after the finding's name, and number: of the value, then of the null."""
        for name, values in ((self.measure.name, self.value), (self.measure.null, self.null)):
            if values is None or name.startswith("_"):
                continue
            if self.per_kind:
                for kind in self.kinds:
                    of_kind = [place.kind == kind for place in self.places]
                    yield _key(kind, name), mean(values[of_kind])
            else:
                yield from (
                    (_key(str(p), name), float(v))
                    for p, v in zip(self.places, values, strict=True)
                    if self.null is None or not np.isnan(v)
                )

    def arrays(self) -> Iterable[tuple[str, np.ndarray]]:
        """Key and values over the blocks [L], of each kind of place that blocks have."""
        for kind in self.kinds:
            of_kind = [p.kind == kind and p.block is not None for p in self.places]
            for name, values in ((self.measure.name, self.value), (self.measure.null, self.null)):
                if any(of_kind) and values is not None and not name.startswith("_"):
                    yield _key(kind, name), values[of_kind]


@dataclass(frozen=True)
class Spectrum:
    """Values by rank [R], descending; of its null, and of the same before training.

    Or values of anything else `at` [R], which are drawn as they are.
    """

    values: np.ndarray
    null: np.ndarray | None = None
    start: np.ndarray | None = None
    at: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """A distribution: density [K] between even edges [K + 1], counts between others; its null.

    `count` is of how many values; 0: not known.
    """

    edges: np.ndarray
    density: np.ndarray
    null: np.ndarray | None = None
    count: int = 0


@dataclass(frozen=True)
class Cloud:
    """Points [N, 2 or 3] with a colour value [N] each, names of the axes, and lines [_, 2 or 3].

    Points may be of `kinds`, which have colours of their own. Lines are seen from the origin,
    which is marked unless an axis is logarithmic; the first of them is solid.
    """

    points: np.ndarray
    color: np.ndarray | None = None
    axes: tuple[str, ...] = ()
    lines: tuple[np.ndarray, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Map:
    """A matrix [rows, columns] of numbers, and what stands at its edges."""

    values: np.ndarray
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


Payload = Spectrum | Sample | Cloud | Map | np.ndarray
Values = Mapping[Place, Mapping[str, float]]


@dataclass(frozen=True)
class Picture:
    """A figure of one finding that is drawn when somebody looks."""

    name: str  #: of its file, without a suffix
    caption: str  #: what is drawn, with the null model that stands beside it
    draw: Callable[[], Any]
    wide: bool = True  #: needs the page's whole width


@dataclass(frozen=True)
class Animation:
    """A moving picture: frames that are drawn one after the other when somebody looks."""

    name: str  #: of its file, without a suffix
    caption: str  #: what is drawn, and what the axes are fixed from
    frames: tuple[str, ...]  #: what each one shows, e.g. "block 3" or "step 400"
    draw: Callable[[int], Any]  #: of a frame: all of one size, with the same limits of axes
    seconds: float = 0.6  #: that a frame stands
    wide: bool = True  #: needs the page's whole width


@dataclass(frozen=True)
class Figure:
    """A row that says what is drawn; made by the kinds in `headless.analysis.drawing`."""

    name: str  #: of its file, without a suffix
    caption: str  #: what is drawn, with the null model that stands beside it
    draw: Callable[["Finding"], Any]
    of: tuple[str, ...] = ()  #: measures or payloads without which there is nothing to draw
    wide: bool = True  #: needs the page's whole width
    film: tuple[str, str] | None = None  #: over checkpoints: the film's name, and what it shows
    #: in the film: a checkpoint's finding in the directions of the last one's
    seen: Callable[["Finding", "Finding"], "Finding"] = lambda finding, last: finding
    #: whether a finding has anything to draw, where `of` does not say so
    has: Callable[["Finding"], bool] = lambda finding: True


@dataclass(frozen=True)
class Answer:
    """What a source says, and what this model does."""

    source: str  #: who says it; of our own, the model or text that it was measured on
    text: str  #: what
    agrees: bool | None  #: by the stated criterion; None: it cannot be asked
    criterion: str  #: in numbers, e.g. "largest Jaccard of adjacent blocks 0.92, at least 0.6"
    #: "own" is what we found in one model or text and ask of others: it is shown and never counted,
    #: for on its source it holds by construction
    kind: Kind = "literature"
    of_text: bool = False  #: it is said of texts; no model agrees or disagrees
    #: what sources contradict each other on: a model always agrees with one of them, so that
    #: neither is counted
    contested: str = ""
    twins: tuple[bool | None, ...] = ()  #: `agrees` of the same shape with random weights
    twin_criterion: str = ""  #: with the numbers of the first of them

    @property
    def counts(self) -> bool:
        """Whether agreement with it says something of a model."""
        return self.kind == "literature" and not self.of_text and not self.contested

    @property
    def twin(self) -> bool | None:
        """Whether it holds in one of the random twins; None: it cannot be asked of any."""
        known = [verdict for verdict in self.twins if verdict is not None]
        return any(known) if known else None


@dataclass(frozen=True)
class Finding:
    """The result of one analysis on one model; an analysis fills the first three.

    Payloads are what figures draw that is more than a number a place, by a key in which "{place}"
    stands for the place, e.g. {"spectrum/{place}": {Place("q", 0): ...}}; of those that begin with
    "_" no arrays are kept.
    """

    series: Mapping[str, Series]  #: numbers at places, by the measure's name
    payloads: Mapping[str, Mapping[Place, Payload]] = field(default_factory=dict)
    answer: str = ""  #: what this model does, in a sentence or two with its numbers
    name: str = ""  #: its key, which the scalars' names begin with
    title: str = ""
    about: str = ""  #: what is measured and how, for a reader new to it
    figures: tuple[Figure, ...] = ()
    claims: tuple[Answer, ...] = ()
    animations: tuple[Animation, ...] = ()  #: shown after the first picture

    def values(self, measure: str, *kinds: str) -> np.ndarray:
        """A measure's values (or those of its null, by the null's name) at places of some kinds."""
        if measure in self.series:
            return self.series[measure].at(*kinds).value
        for series in self.series.values():
            if series.null is not None and series.measure.null == measure:
                part = series.at(*kinds).null
                assert part is not None
                return part
        return np.zeros(0)

    def answered(self, answer: str) -> "Finding":
        """The same with an answer."""
        return replace(self, answer=answer)

    def label(self, measure: str) -> str:
        """A measure in words."""
        for series in self.series.values():
            if series.measure.name == measure:
                return series.measure.label
        return measure.replace("_", " ").strip()

    def by_kind(self, measure: str, digits: int = 2) -> str:
        """A measure's mean at each kind of place as "q 0.86, k 0.51"."""
        means = {kind: mean(self.values(measure, kind)) for kind in self.series[measure].kinds}
        return ", ".join(f"{kind} {value:.{digits}f}" for kind, value in means.items())

    @property
    def scalars(self) -> dict[str, float]:
        """Every number by its key, e.g. {"anisotropy/post/03/centred": 0.0}."""
        return {
            f"{self.name}/{key}": value
            for series in self.series.values()
            for key, value in series.numbers()
        }

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Series over blocks and payloads as arrays, by their keys in `analysis.json`."""
        kinds: dict[type, str] = {
            Spectrum: "values",
            Map: "values",
            Sample: "density",
            Cloud: "points",
        }
        found: dict[str, Any] = {
            key: array for one in self.series.values() for key, array in one.arrays()
        }
        return found | {
            key.replace("{place}", str(place)): getattr(one, kinds.get(type(one), ""), one)
            for key, places in self.payloads.items()
            for place, one in places.items()
            if not key.startswith("_")
        }

    @property
    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Counts [K] and edges [K + 1] of samples of known size between even edges, by place."""
        samples = {
            str(place): sample
            for key, places in self.payloads.items()
            for place, sample in places.items()
            if not key.startswith("_") and isinstance(sample, Sample) and sample.count
        }
        widths = {place: np.diff(sample.edges) for place, sample in samples.items()}
        return {
            place: (np.rint(s.density * widths[place] * s.count).astype(np.int64), s.edges)
            for place, s in samples.items()
            if np.allclose(widths[place], widths[place][0])
        }

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The figures that this finding has the numbers for."""
        return tuple(
            Picture(figure.name, figure.caption, partial(figure.draw, self), figure.wide)
            for figure in self.figures
            if all(key in self.series or key in self.payloads for key in figure.of)
            and figure.has(self)
        )


def series_of(
    values: Values, measures: Sequence[Measure] = (), *, per_kind: bool = False
) -> dict[str, Series]:
    """Numbers of places, in the order of the computation, by the measure's (or null's) name.

    `measures` have words or nulls and come first; any other is its name alone.
    """
    nulls = {measure.null for measure in measures if measure.null}
    names = dict.fromkeys(name for numbers in values.values() for name in numbers)
    known = {measure.name for measure in measures}
    rest = [Measure(name) for name in names if name not in known and name not in nulls]
    found = {}
    for measure in (*measures, *rest):
        places = tuple(place for place, numbers in values.items() if measure.name in numbers)
        if not places:
            continue
        null = None
        if measure.null and any(measure.null in values[place] for place in places):
            null = np.array([values[place].get(measure.null, np.nan) for place in places])
        value = np.array([values[place][measure.name] for place in places], dtype=float)
        found[measure.name] = Series(measure, places, value, null, per_kind)
    return found


def mean(values: np.ndarray) -> float:
    """Of the finite values; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _key(*parts: str) -> str:
    return "/".join(part for part in parts if part)
