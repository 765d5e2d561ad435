"""The tables of an analysis' page: what the sources say, and the numbers, blocks side by side."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headless.analysis.record import Answer, Finding
from headless.analysis.tally import Tally, in_words, tally
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page

VERDICTS = {True: "yes", False: "no", None: "cannot be asked"}
MAX_ROWS = 60  # of a table of numbers; analysis.json has all
MAX_BLOCKS = 12  # side by side: more are shown by some, evenly
OTHERS = "Others"
# The sources that the laboratory follows, by what their names hold; all others come last.
SOURCES = (
    ("Language models have cone-shaped heads (talk)", ("talk",)),
    ("Basic facts about language model internals (Conjecture)", ("conjecture",)),
    ("Latent geometry (Ning and Rangaraju, arXiv 2511.21594)", ("2511.21594", "ning and rang")),
    (OTHERS, ("",)),
)


def anchor_of(finding: Finding) -> str:
    """The id of a finding's section."""
    return "finding-" + re.sub(r"[^A-Za-z0-9_-]", "-", finding.name)


def add_claims(page: Page, findings: Sequence[Finding], twin: str = "") -> None:
    """Every claim, grouped by who makes it, with what this model does and where that stands.

    Args:
        page: is added to.
        findings: with the claims.
        twin: what the random weights are that the claims were asked of as well; empty: none.
    """
    claims = [(finding, claim) for finding in findings for claim in finding.claims]
    if not claims:
        return
    page.heading("What the sources report, and what this model does")
    for told in in_words(tally(findings), twin):
        page.paragraph(told)
    page.paragraph(
        "Each criterion is stated beside its answer; the sections below have the numbers and the "
        "pictures."
    )
    groups: dict[str, list[tuple[Finding, Answer]]] = {name: [] for name, _ in SOURCES}
    for finding, claim in claims:
        groups[source_of(claim)].append((finding, claim))
    columns = [Column("reported finding", "", "left"), *_verdict_columns(twin)]
    for name, own in groups.items():
        if not own:
            continue
        rows = [
            [
                Cell(sentence(claim.text), _detail(claim, named=name == OTHERS)),
                *_verdicts(claim, twin),
                Cell(finding.title, to=anchor_of(finding)),
            ]
            for finding, claim in own
        ]
        page.table(
            [*columns, Column("section", "", "left")],
            rows,
            f"{name}: {_group(tally([replace(f, claims=(claim,)) for f, claim in own]), twin)}",
            wide=True,
        )


def _group(found: Tally, twin: str) -> str:
    told = f"this model agrees with {found.agrees} of {found.asked}"
    return f"{told}, its random twins do not with {found.alone} of these." if twin else f"{told}."


def _verdict_columns(twin: str) -> list[Column]:
    here = [Column("here", "", "left"), *([Column("random twins", "", "left")] if twin else [])]
    return [*here, Column("criterion", "", "left")]


def _verdicts(claim: Answer, twin: str) -> list[Cell]:
    """Of the model, of the twin where there is one, and the criterion of both."""
    here = Cell(VERDICTS[claim.agrees], strong=claim.agrees is False)
    if not twin:
        return [here, Cell(claim.criterion)]
    theirs = f"a random twin: {claim.twin_criterion}" if claim.twin_criterion else ""
    there = ", ".join(VERDICTS[verdict] for verdict in dict.fromkeys(claim.twins))
    return [here, Cell(there or MISSING), Cell(claim.criterion, theirs)]


def _detail(claim: Answer, *, named: bool) -> str:
    """Who says so, and why it is not counted."""
    apart = ""
    if claim.kind == "own":
        apart = "not counted: our own finding"
    elif claim.of_text:
        apart = "not counted: said of texts"
    elif claim.contested:
        apart = f"not counted: sources disagree {claim.contested}"
    source = claim.source if named or claim.kind == "own" else ""
    return "; ".join(part for part in (source, apart) if part)


def source_of(claim: Answer) -> str:
    """The group of `SOURCES` that a claim belongs to."""
    said = claim.source.lower()
    return next(name for name, marks in SOURCES if any(mark in said for mark in marks))


def sentence(text: str) -> str:
    """With a capital and without a full stop, however an analysis wrote it."""
    return text[:1].upper() + text[1:].removesuffix(".")


def claim_table(claims: Sequence[Answer], twin: str) -> tuple[list[Column], list[list[Cell | str]]]:
    """A section's table: columns and rows."""
    columns = [Column("finding", "source", "left"), *_verdict_columns(twin)]
    return columns, [
        [Cell(sentence(claim.text), _detail(claim, named=True)), *_verdicts(claim, twin)]
        for claim in claims
    ]


def add_scalars(page: Page, scalars: Mapping[str, float]) -> None:
    """All numbers, folded away: those of the blocks in one row with a column a block."""
    single, rows, blocks = by_block(scalars)
    with page.details(f"{len(scalars)} numbers"):
        if rows:
            shown = blocks
            if len(blocks) > MAX_BLOCKS:
                places = {
                    round(i * (len(blocks) - 1) / (MAX_BLOCKS - 1)) for i in range(MAX_BLOCKS)
                }
                shown = [blocks[place] for place in sorted(places)]
            columns = [Column("number", "* is the block", "left"), *(Column(b) for b in shown)]
            kept = list(rows.items())[:MAX_ROWS]
            cells: list[list[Cell | str]] = [
                [Cell(name, code=True), *(_text(found.get(block)) for block in shown)]
                for name, found in kept
            ]
            page.table(columns, cells, wide=True)
        kept_single = list(single.items())[:MAX_ROWS]
        if kept_single:
            page.table(
                [Column("number", "", "left"), Column("value")],
                [[Cell(name, code=True), _text(value)] for name, value in kept_single],
            )
        if len(rows) > MAX_ROWS or len(single) > MAX_ROWS or len(blocks) > MAX_BLOCKS:
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


def _text(value: float | None) -> str:
    return MISSING if value is None else compact(value, 4)
