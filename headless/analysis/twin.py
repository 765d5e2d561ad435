"""The same shape with random weights: what a network does before it has learnt anything."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from headless.analysis.laboratory import analyze
from headless.analysis.record import Answer, Finding
from headless.analysis.session import Session, Subject

DRAWN = "the same shape with weights as its config draws them"
FIRST = "its own weights before training, and others drawn in the same way"
SHARE = 8  # of the text each twin reads an eighth,
LEAST = 24  # but so many sequences
STATES = 3  # and so many states for each dimension: of fewer some claims cannot be asked
SEED = 0x7717  # beside the session's: the model itself may be drawn from that


def ask_twin(
    findings: Sequence[Finding],
    session: Session,
    analyses: Sequence[str],
    first: Subject | None = None,
) -> tuple[list[Finding], str]:
    """Ask every claim of random weights, too: of two models, whose difference is chance.

    Args:
        findings: of the session.
        session: what was looked at, and how.
        analyses: names of those that made the findings.
        first: the same model before training, where it is known.

    Returns:
        The findings with the twins' answers, and what the twins are.
    """
    asked = {finding.name for finding in findings if any(claim.counts for claim in finding.claims)}
    if not asked:
        return list(findings), ""
    twins = [_drawn(session, 0) if first is None else first, _drawn(session, 1)]
    theirs = [analyze(_short(session, twin), analyses)[0] for twin in twins]
    return beside_twins(findings, theirs), DRAWN if first is None else FIRST


def beside_twins(findings: Sequence[Finding], twins: Sequence[Sequence[Finding]]) -> list[Finding]:
    """The findings, each claim with what the same analysis says of each twin."""
    theirs = [
        {(f.name, claim.source, claim.text): claim for f in found for claim in f.claims}
        for found in twins
    ]

    def asked(finding: Finding, claim: Answer) -> Answer:
        key = (finding.name, claim.source, claim.text)
        known = [found[key] for found in theirs if key in found and not claim.of_text]
        if not known:
            return claim
        verdicts = tuple(answer.agrees for answer in known)
        return replace(claim, twins=verdicts, twin_criterion=known[0].criterion)

    return [replace(f, claims=tuple(asked(f, claim) for claim in f.claims)) for f in findings]


def _drawn(session: Session, number: int) -> Subject:
    """A model of the same class and config, with weights of its own."""
    model: Any = getattr(session.subject.model, "_orig_mod", session.subject.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.seed + SEED + number)
        twin = type(model)(copy.deepcopy(model.config))
    return replace(session.subject, model=twin.eval().to(session.device), shown=None)


def _short(session: Session, twin: Subject) -> Session:
    """A session on a twin: as much of the text as every claim needs."""
    rows_NT = twin.sequences_NT
    if rows_NT is not None:
        number, length = rows_NT.shape
        width = int(twin.backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
        wanted = max(number // SHARE, LEAST, -(-STATES * width // max(length - 1, 1)))
        rows_NT = rows_NT[:: max(1, number // wanted)]
    # Weights before training are not compared with themselves.
    alone = replace(twin, sequences_NT=rows_NT, initial=None, beginning="")

    def report(what: str, done: int, total: int) -> None:
        session.report(what if what == "states" else f"random twin: {what}", done, total)

    return replace(
        session,
        subject=alone,
        report=report,
        umap=False,
        claims_only=True,
        courses=None,
        checkpoints=None,
        _statistics=None,
        _shared={},
    )
