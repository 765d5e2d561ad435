"""`@analysis`: how a function of a session becomes a row of the laboratory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from headless.analysis.claims import Claim
from headless.analysis.record import Figure, Finding
from headless.analysis.session import Session
from headless.analysis.states.families import UNKNOWN, family_of
from headless.errors import HeadlessError

Need = Literal[
    "text",
    "tokens",
    "loss",
    "causal",
    "head",
    "counts",
    "initial",
    "parts",
    "courses",
    "checkpoints",
]

# Of which points an analysis reads the session's statistics, or a reservoir: none, what the head
# reads, or any. Where no chosen one reads more than the last, nothing else is measured.
States = Literal["none", "last", "all"]


class Measuring(Protocol):
    """An analysis: series, payloads and an answer; None where the model has nothing of the kind."""

    __module__: str

    def __call__(self, lab: Session, *, nulls: bool) -> Finding | None: ...


@dataclass(frozen=True)
class Analysis:
    """A function that measures, and what is static about its finding."""

    #: of a session; with `nulls=False` its cheap form: no null models, further runs of the model or
    #: decompositions of anything large
    measure: Measuring
    option: str  #: its name in --analyses; several may share one
    name: str  #: of its finding
    title: str  #: for a heading
    about: str  #: what is measured and how, for a reader new to it
    #: what a session must have; without it the analysis is left out and named
    needs: frozenset[Need] = frozenset()
    states: States = "all"  #: the points whose statistics it reads
    cheap: bool = False  #: whether it has a cheap form
    figures: tuple[Figure, ...] = ()  #: in the order in which they are looked at
    claims: tuple[Claim, ...] = ()  #: rows that are asked of the model

    def __call__(self, lab: Session, *, nulls: bool = True) -> Finding | None:
        """The finding, with figures and answered claims.

        Raises:
            HeadlessError: the session lacks what the analysis needs.
        """
        for need, lacks in LACKS.items():
            if need in self.needs and (reason := lacks(lab)):
                raise HeadlessError(reason)
        measured = self.measure(lab, nulls=nulls)
        if measured is None:
            return None
        finding = replace(
            measured, name=self.name, title=self.title, about=self.about, figures=self.figures
        )
        claims = [claim for claim in self.claims if claim.asked(finding)]
        return replace(finding, claims=tuple(claim.answer(finding) for claim in claims))


OWN: dict[str, Analysis] = {}  # of modules outside this package: what a user adds, by name


def analysis(
    option: str,
    *,
    title: str,
    about: str,
    name: str = "",
    needs: set[Need] | None = None,
    states: States = "all",
    cheap: bool = False,
    figures: Sequence[Figure] = (),
    claims: Sequence[Claim] = (),
) -> Callable[[Measuring], Analysis]:
    """Make an `Analysis` of a function; the arguments are those of `Analysis`.

    One of a user's own module or notebook is known to `headless analyze` from then on.
    """

    def made(measure: Measuring) -> Analysis:
        named, needed = name or option, frozenset(needs or ())
        shown = tuple(figures), tuple(claims)
        one = Analysis(measure, option, named, title, about, needed, states, cheap, *shown)
        if measure.__module__.split(".")[0] != "headless":
            OWN[one.name] = one
        return one

    return made


def _counts(lab: Session) -> str:
    counts_V = lab.subject.counts_V
    known = counts_V is not None and bool(counts_V.any())
    return "" if known else "the training text's token counts are not known"


def _parts(lab: Session) -> str:
    if family_of(lab.subject.backbone) is not UNKNOWN:
        return ""
    kind = lab.subject.backbone.config.model_type  # type: ignore[union-attr]
    return f"the laboratory does not know the parts of a {kind}'s blocks"


LACKS: dict[Need, Callable[[Session], str]] = {
    "text": lambda lab: "" if lab.subject.sequences_NT is not None else "no text was given",
    "tokens": lambda lab: "" if lab.subject.tokens is not None else "no prepared text was given",
    "loss": lambda lab: lab.subject.no_loss,
    "causal": lambda lab: "" if lab.is_causal else "the model is not causal",
    "head": lambda lab: "" if lab.subject.has_head else lab.subject.why_no_head,
    "counts": _counts,
    "parts": _parts,
    "initial": lambda lab: (
        "" if lab.subject.initial is not None else "the weights before training are not known"
    ),
    "courses": lambda lab: (
        "" if lab.courses is not None else "no numbers over training are known: of runs alone"
    ),
    "checkpoints": lambda lab: (
        "" if lab.checkpoints is not None else "it compares a run's checkpoints: --steps all"
    ),
}
