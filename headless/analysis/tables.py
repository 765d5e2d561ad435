"""The tables of an analysis' page: what the sources say, and the numbers, blocks side by side.

A criterion in numbers may hold in any network of a shape: what random weights of the same shape
do as well was not learnt. So every claim is asked of two such twins too, and the difference counts;
how far the twins are from each other is its null.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headless.analysis.record import Answer, Finding
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page

VERDICTS = {True: "yes", False: "no", None: "cannot be asked"}
MAX_ROWS = 60  # of a table of numbers; analysis.json has all
MAX_BLOCKS = 12  # side by side: more are shown by some, evenly
# The sources that the laboratory follows, by what their names hold; all others come last.
SOURCES = (
    ("Language models have cone-shaped heads (talk)", ("talk",)),
    ("Basic facts about language model internals (Conjecture)", ("conjecture",)),
    ("Latent geometry (Ning and Rangaraju, arXiv 2511.21594)", ("2511.21594", "ning and rang")),
    ("Others", ("",)),
)


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


def tally(claims: Sequence[Answer]) -> Tally:
    """Count claims, with what the twins say."""
    counted = [claim for claim in claims if claim.counts]
    held = [claim for claim in counted if claim.agrees]
    return Tally(
        claims=len(counted),
        asked=sum(claim.agrees is not None for claim in counted),
        agrees=len(held),
        alone=sum(claim.twin is False for claim in held),
        both=sum(claim.twin is True for claim in held),
        unknown=sum(claim.twin is None for claim in held),
        twin_alone=sum(claim.agrees is False and claim.twin is True for claim in counted),
        null=sum({True, False} <= set(claim.twins) for claim in counted),
        own=sum(claim.kind == "own" for claim in claims),
        of_text=sum(claim.of_text and claim.kind != "own" for claim in claims),
        contested=sum(bool(claim.contested) and claim.kind != "own" for claim in claims),
    )


def in_words(found: Tally, twin: str = "") -> list[str]:
    """The headline and what it leaves out, a paragraph each; `twin` says what the twins are."""
    agrees = (
        f"agrees with {found.agrees} of the {found.asked} findings of the literature that could "
        f"be asked of it (of {found.claims})"
    )
    if twin:
        holds = "finding holds" if found.alone == 1 else "findings hold"
        unknown = f", and {found.unknown} could not be asked of them" if found.unknown else ""
        told = [
            f"{found.alone} reported {holds} in this model and in neither of its two random twins "
            f"({twin}); the twins differ from each other in {found.null}. Of a text they read "
            "less, an eighth where that is enough, which may decide where a number is near its "
            "criterion.",
            f"The model {agrees}, but {found.both} of these hold in random weights as well and say "
            f"nothing about training{unknown}. In random weights alone hold {found.twin_alone}.",
        ]
    else:
        told = [
            f"This model {agrees}. How many of these hold in any network of its shape is not known "
            "here: random weights were not asked."
        ]
    apart = {
        "on which sources contradict each other": found.contested,
        "that we found ourselves in one model or text": found.own,
        "said of texts": found.of_text,
    }
    shown = ", ".join(f"{number} {words}" for words, number in apart.items() if number)
    return [*told, *([f"Shown but not counted: {shown}."] if shown else [])]


def anchor_of(finding: Finding) -> str:
    """The id of a finding's section."""
    return "finding-" + re.sub(r"[^A-Za-z0-9_-]", "-", finding.name)


def add_claims(page: Page, findings: Sequence[Finding], twin: str = "") -> None:
    """Every claim, grouped by who makes it, with what this model does and where that stands.

    `twin` says what the random weights are that the claims were asked of as well; empty: none.
    """
    claims = [(finding, claim) for finding in findings for claim in finding.claims]
    if not claims:
        return
    page.heading("What the sources report, and what this model does")
    for paragraph in in_words(tally([claim for _, claim in claims]), twin):
        page.paragraph(paragraph)
    titles = ["reported finding", "here", *(["random twins"] if twin else []), "criterion"]
    for name, _ in SOURCES:
        own = [(finding, claim) for finding, claim in claims if source_of(claim) == name]
        if not own:
            continue
        count = tally([claim for _, claim in own])
        told = f"{name}: this model agrees with {count.agrees} of {count.asked}"
        told += f", its random twins do not with {count.alone} of these." if twin else "."
        rows = [
            [
                Cell(sentence(claim.text), _detail(claim)),
                *_verdicts(claim, twin),
                Cell(finding.title, to=anchor_of(finding)),
            ]
            for finding, claim in own
        ]
        columns = [Column(title, "", "left") for title in (*titles, "section")]
        page.table(columns, rows, told, wide=True)


def _verdicts(claim: Answer, twin: str) -> list[Cell]:
    """Of the model, of the twins where there are some, and the criterion of both."""
    here = Cell(VERDICTS[claim.agrees], strong=claim.agrees is False)
    if not twin:
        return [here, Cell(claim.criterion)]
    theirs = f"a random twin: {claim.twin_criterion}" if claim.twin_criterion else ""
    there = ", ".join(VERDICTS[verdict] for verdict in dict.fromkeys(claim.twins))
    return [here, Cell(there or MISSING), Cell(claim.criterion, theirs)]


def _detail(claim: Answer) -> str:
    """Who says so, and why it is not counted."""
    apart = ""
    if claim.kind == "own":
        apart = "; not counted: our own finding"
    elif claim.of_text:
        apart = "; not counted: said of texts"
    elif claim.contested:
        apart = f"; not counted: sources disagree {claim.contested}"
    return claim.source + apart


def source_of(claim: Answer) -> str:
    """The group of `SOURCES` that a claim belongs to."""
    said = claim.source.lower()
    return next(name for name, marks in SOURCES if any(mark in said for mark in marks))


def sentence(text: str) -> str:
    """With a capital and without a full stop, however an analysis wrote it."""
    return text[:1].upper() + text[1:].removesuffix(".")


def add_scalars(page: Page, scalars: Mapping[str, float]) -> None:
    """All numbers, folded away: those of the blocks in one row with a column a block."""
    single, rows, blocks = by_block(scalars)
    shown = blocks
    if len(blocks) > MAX_BLOCKS:
        evenly = np.linspace(0, len(blocks) - 1, MAX_BLOCKS).round().astype(int)
        shown = [blocks[i] for i in evenly]
    tables = (
        (
            [Column("number", "* is the block", "left"), *(Column(block) for block in shown)],
            {name: [found.get(block) for block in shown] for name, found in rows.items()},
        ),
        ([Column("number", "", "left"), Column("value")], {k: [v] for k, v in single.items()}),
    )
    with page.details(f"{len(scalars)} numbers"):
        for columns, numbers in tables:
            cells: list[list[Cell | str]] = [
                [Cell(k, code=True), *(MISSING if v is None else compact(v, 4) for v in values)]
                for k, values in list(numbers.items())[:MAX_ROWS]
            ]
            if cells:
                page.table(columns, cells, wide=len(columns) > 2)
        if max(len(rows), len(single)) > MAX_ROWS or len(blocks) > MAX_BLOCKS:
            page.paragraph("`analysis.json` has the others.")


def by_block(
    scalars: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """Numbers that are alone, numbers of blocks by `block_of` of their names, and all blocks."""
    single: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, value in scalars.items():
        row, block = block_of(name)
        if block:
            rows.setdefault(row, {})[block] = value
        else:
            single[name] = value
    blocks = sorted({block for row in rows.values() for block in row}, key=int)
    return single, rows, blocks


def block_of(name: str, digits: int = 2) -> tuple[str, str]:
    """A number's name with `*` in its block's place, and the block, "" where it has none.

    The block is the one part of the name that is a number of `digits` or more, as `Place` spells
    it: `norms/post/03/rest` is `norms/post/*/rest` of `03`.
    """
    parts = name.split("/")
    blocks = [part for part in parts if part.isdigit() and len(part) >= digits]
    if len(blocks) != 1:
        return name, ""
    parts[parts.index(blocks[0])] = "*"
    return "/".join(parts), blocks[0]
