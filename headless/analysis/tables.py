"""The tables of an analysis' page: what the sources say, and the numbers, blocks side by side."""

import re
from collections.abc import Mapping, Sequence

from headless.analysis.finding import Claim, Finding
from headless.pages.numbers import MISSING, compact
from headless.pages.page import Cell, Column, Page

VERDICTS = {True: "yes", False: "no", None: "cannot be asked"}
MAX_ROWS = 60  # of a table of numbers; analysis.json has all
MAX_BLOCKS = 12  # side by side: more are shown by some, evenly
CLAIM_COLUMNS = (
    Column("finding", "source", "left"),
    Column("here", "", "left"),
    Column("criterion", "", "left"),
)
OTHERS = "Others"
_OVERVIEW = (
    Column("reported finding", "", "left"),
    Column("here", "", "left"),
    Column("criterion", "", "left"),
    Column("section", "", "left"),
)
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


def add_claims(page: Page, findings: Sequence[Finding]) -> None:
    """Every claim, grouped by who makes it, with what this model does and where that stands."""
    claims = [(finding, claim) for finding in findings for claim in finding.claims]
    if not claims:
        return
    page.heading("What the sources report, and what this model does")
    asked = [claim for _, claim in claims if claim.agrees is not None]
    page.paragraph(
        f"Of {len(claims)} reported findings {len(asked)} could be asked of this model; it "
        f"agrees with {sum(bool(claim.agrees) for claim in asked)}. Each criterion is stated "
        "beside its answer; the sections below have the numbers and the pictures."
    )
    groups: dict[str, list[tuple[Finding, Claim]]] = {name: [] for name, _ in SOURCES}
    for finding, claim in claims:
        groups[source_of(claim)].append((finding, claim))
    for name, own in groups.items():
        if not own:
            continue
        agreed = sum(bool(claim.agrees) for _, claim in own)
        known = sum(claim.agrees is not None for _, claim in own)
        rows = [
            [
                Cell(sentence(claim.text), claim.source if name == OTHERS else ""),
                Cell(VERDICTS[claim.agrees], strong=claim.agrees is False),
                Cell(claim.criterion),
                Cell(finding.title, to=anchor_of(finding)),
            ]
            for finding, claim in own
        ]
        page.table(
            _OVERVIEW, rows, f"{name}: this model agrees with {agreed} of {known}.", wide=True
        )


def source_of(claim: Claim) -> str:
    """The group of `SOURCES` that a claim belongs to."""
    said = claim.source.lower()
    return next(name for name, marks in SOURCES if any(mark in said for mark in marks))


def sentence(text: str) -> str:
    """With a capital and without a full stop, however an analysis wrote it."""
    return text[:1].upper() + text[1:].removesuffix(".")


def claim_row(claim: Claim) -> list[Cell | str]:
    """A row of a section's table, under `CLAIM_COLUMNS`."""
    return [
        Cell(sentence(claim.text), claim.source),
        Cell(VERDICTS[claim.agrees], strong=claim.agrees is False),
        Cell(claim.criterion),
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
    scalars: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, dict[str, float]], list[str]]:
    """Numbers that are alone, numbers of blocks by a name with `*` in the block's place, blocks.

    A block is a part of the name of two digits or more: `norms/post/03/rest` is
    `norms/post/*/rest`.
    """
    single: dict[str, float] = {}
    rows: dict[str, dict[str, float]] = {}
    for name, value in scalars.items():
        parts = name.split("/")
        places = [i for i, part in enumerate(parts) if re.fullmatch(r"\d{2,}", part)]
        if len(places) != 1:
            single[name] = value
            continue
        block = parts[places[0]]
        parts[places[0]] = "*"
        rows.setdefault("/".join(parts), {})[block] = value
    blocks = sorted({block for found in rows.values() for block in found}, key=int)
    return single, rows, blocks


def _text(value: float | None) -> str:
    return MISSING if value is None else compact(value, 4)
