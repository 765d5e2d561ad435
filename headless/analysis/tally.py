"""How many reported findings a model agrees with, and how many of them say nothing of training.

A criterion in numbers may hold in any network of a shape: what random weights of the same shape
do as well was not learnt. So every claim is asked of two such twins too, and the difference counts;
how far the twins are from each other is its null.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headless.analysis.record import Answer, Finding


@dataclass(frozen=True)
class Tally:
    """Claims of the literature about models, counted; those of `Answer.counts` alone."""

    claims: int  #: all of them
    asked: int  #: that could be asked of the model
    agrees: int  #: that hold in it
    alone: int  #: of these, that hold in none of its random twins
    both: int  #: of these, that hold in a twin as well
    unknown: int  #: of these, that could not be asked of a twin
    twin_alone: int  #: that hold in a twin and not in the model
    null: int  #: on which the twins do not answer alike
    own: int  #: not counted: what we found ourselves
    of_text: int  #: not counted: said of texts
    contested: int  #: not counted: sources that contradict each other


def tally(findings: Sequence[Finding]) -> Tally:
    """Count the claims of findings, with what the twins say."""
    claims = [claim for finding in findings for claim in finding.claims]
    counted = [claim for claim in claims if claim.counts]
    held = [claim for claim in counted if claim.agrees]
    others = [claim for claim in claims if not claim.counts]
    return Tally(
        claims=len(counted),
        asked=sum(claim.agrees is not None for claim in counted),
        agrees=len(held),
        alone=sum(claim.twin is False for claim in held),
        both=sum(claim.twin is True for claim in held),
        unknown=sum(claim.twin is None for claim in held),
        twin_alone=sum(claim.agrees is False and claim.twin is True for claim in counted),
        null=sum({True, False} <= set(claim.twins) for claim in counted),
        own=sum(claim.kind == "own" for claim in others),
        of_text=sum(claim.of_text and claim.kind != "own" for claim in others),
        contested=sum(bool(claim.contested) and claim.kind != "own" for claim in others),
    )


def beside_twins(findings: Sequence[Finding], twins: Sequence[Sequence[Finding]]) -> list[Finding]:
    """The findings, each claim with what the same analysis says of each twin."""
    theirs = [
        {
            (finding.name, claim.source, claim.text): claim
            for finding in found
            for claim in finding.claims
        }
        for found in twins
    ]

    def asked(finding: Finding, claim: Answer) -> Answer:
        key = (finding.name, claim.source, claim.text)
        answers = [] if claim.of_text else [found.get(key) for found in theirs]
        known = [answer for answer in answers if answer is not None]
        if not known:
            return claim
        verdicts = tuple(answer.agrees for answer in known)
        return replace(claim, twins=verdicts, twin_criterion=known[0].criterion)

    return [
        replace(finding, claims=tuple(asked(finding, claim) for claim in finding.claims))
        for finding in findings
    ]


def in_words(found: Tally, twin: str = "") -> list[str]:
    """The headline and what it leaves out, a paragraph each.

    Args:
        found: the counts.
        twin: what the twins are, e.g. "the same shape with random weights"; empty: there are none.
    """
    if twin:
        told = [
            f"{_hold(found.alone)} in this model and in neither of its two random twins ({twin}); "
            f"the twins differ from each other in {found.null}. Of a text they read "
            "less, an eighth where that is enough, which may decide where a number is near its "
            "criterion.",
            f"The model agrees with {found.agrees} of the {found.asked} findings of the literature "
            f"that could be asked of it (of {found.claims}), but {found.both} of these hold in "
            "random weights as well and say nothing about training"
            + (f", and {found.unknown} could not be asked of them" if found.unknown else "")
            + f". In random weights alone hold {found.twin_alone}.",
        ]
    else:
        told = [
            f"This model agrees with {found.agrees} of the {found.asked} findings of the "
            f"literature that could be asked of it (of {found.claims}). How many of these hold in "
            "any network of its shape is not known here: random weights were not asked."
        ]
    apart = [
        f"{number} {words}"
        for number, words in (
            (found.contested, "on which sources contradict each other"),
            (found.own, "that we found ourselves in one model or text"),
            (found.of_text, "said of texts"),
        )
        if number
    ]
    return [*told, *([f"Shown but not counted: {', '.join(apart)}."] if apart else [])]


def _hold(number: int) -> str:
    return f"{number} reported finding{' holds' if number == 1 else 's hold'}"
