"""Findings to files: a page to read, every number as JSON, every figure for a paper."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import headless
from headless.analysis.finding import Claim, Finding, Picture
from headless.errors import HeadlessError
from headless.files import write_text
from headless.pages.numbers import compact
from headless.pages.page import Cell, Column, Page

PAGE, NUMBERS, FIGURES = "analysis.html", "analysis.json", "figures"
FigureFormat = Literal["svg", "png", "pdf"]
MAX_SCALARS = 60  # of a finding on the page; analysis.json has all
MAX_ARRAY = 4096  # entries of an array in analysis.json
VERDICTS = {True: "yes", False: "no", None: "cannot be asked"}

Report = Callable[[str, int, int], None]  # what is done, how much of it, of how much


def check_output(output: Path, overwrite: bool) -> None:
    """Whether there is room for an analysis, before hours of work.

    Raises:
        HeadlessError: a file, or an analysis, is in the way.
    """
    if output.exists() and not output.is_dir():
        raise HeadlessError(f"{output} is a file: give another --output")
    there = [name for name in (PAGE, NUMBERS, FIGURES) if (output / name).exists()]
    if there and not overwrite:
        raise HeadlessError(
            f"{output} has {there[0]} already: replace it with --overwrite true, or give another "
            "--output"
        )


def write_report(
    title: str,
    findings: Sequence[Finding],
    output: Path,
    *,
    about: Sequence[tuple[str, str]] = (),
    formats: Sequence[FigureFormat] = ("svg", "png"),
    report: Report = lambda what, done, total: None,
) -> Path:
    """Write the page, the numbers and the figures; returns the page.

    Args:
        title: of the page: which model.
        findings: in the order in which they are read.
        output: the directory to write to; made where it is missing.
        about: what else a reader must know: model, text, tokens, versions.
        formats: of the figures beside the page.
        report: is told of drawn figures.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / NUMBERS, json.dumps(as_json(title, findings, about), indent=1) + "\n")
    drawn: dict[str, Any] = {}
    pictures = [picture for finding in findings for picture in finding.pictures]
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{FIGURES}-") as temporary:
        directory = Path(temporary) / FIGURES
        directory.mkdir()
        for done, picture in enumerate(pictures):
            report(picture.name, done, len(pictures))
            drawn[picture.name] = _draw(picture, directory, formats)
        _replace(directory, output / FIGURES)
    build_page(title, findings, about, drawn).write(output / PAGE)
    return output / PAGE


def _draw(picture: Picture, directory: Path, formats: Sequence[FigureFormat]) -> Any:
    figure = picture.draw()
    for suffix in formats:
        figure.savefig(directory / f"{picture.name}.{suffix}", dpi=160, bbox_inches="tight")
    return figure


def _replace(new: Path, old: Path) -> None:
    """A directory in the place of another, which is gone afterwards."""
    if old.exists():
        os.replace(old, new.parent / "old")
    os.replace(new, old)


def build_page(
    title: str,
    findings: Sequence[Finding],
    about: Sequence[tuple[str, str]],
    figures: dict[str, Any],
) -> Page:
    """The page: what the sources say and this model does, then every finding."""
    page = Page(title, f"{len(findings)} analyses", contents=True)
    claims = [(finding, claim) for finding in findings for claim in finding.claims]
    if claims:
        page.heading("What the sources report, and what this model does")
        asked = [claim for _, claim in claims if claim.agrees is not None]
        page.paragraph(
            f"Of {len(claims)} reported findings {len(asked)} could be asked of this model; it "
            f"agrees with {sum(bool(claim.agrees) for claim in asked)}. Each criterion is stated "
            "beside its answer; the sections below have the numbers and the pictures."
        )
        columns = [
            Column("finding", "source", "left"),
            Column("here", "", "left"),
            Column("criterion", "", "left"),
        ]
        page.table(columns, [_claim(claim) for _, claim in claims], "All claims.", wide=True)
    for finding in findings:
        _section(page, finding, figures)
    page.heading("How this was made")
    page.definitions(list(about))
    page.paragraph(
        f"Made by headless {headless.__version__}. `{NUMBERS}` beside this page has every number, "
        f"`{FIGURES}/` every picture."
    )
    return page


def _section(page: Page, finding: Finding, figures: dict[str, Any]) -> None:
    page.heading(finding.title)
    page.paragraph(finding.about)
    if finding.answer:
        page.notes([finding.answer], "note", "This model")
    for picture in finding.pictures:
        page.figure(figures[picture.name], picture.caption, wide=picture.wide)
    if finding.claims:
        columns = [
            Column("finding", "source", "left"),
            Column("here", "", "left"),
            Column("criterion", "", "left"),
        ]
        page.table(columns, [_claim(claim) for claim in finding.claims])
    if finding.scalars:
        shown = list(finding.scalars.items())[:MAX_SCALARS]
        more = len(finding.scalars) - len(shown)
        with page.details(f"{len(finding.scalars)} numbers"):
            rows: list[list[Cell | str]] = [
                [Cell(name, code=True), compact(value, 4)] for name, value in shown
            ]
            page.table([Column("number", "", "left"), Column("value")], rows)
            if more:
                page.paragraph(f"{more} more are in `{NUMBERS}`.")


def _claim(claim: Claim) -> list[Cell]:
    return [
        Cell(claim.text, claim.source),
        Cell(VERDICTS[claim.agrees], strong=claim.agrees is False),
        Cell(claim.criterion),
    ]


def as_json(
    title: str, findings: Sequence[Finding], about: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """All numbers as plain values; what is not finite is null, long arrays are left out."""
    return {
        "format": 1,
        "headless": headless.__version__,
        "title": title,
        "about": dict(about),
        "findings": [
            {
                "name": finding.name,
                "title": finding.title,
                "answer": finding.answer,
                "scalars": {name: _plain(value) for name, value in finding.scalars.items()},
                "arrays": {
                    name: _array(array)
                    for name, array in finding.arrays.items()
                    if array.size <= MAX_ARRAY
                },
                "claims": [vars(claim) for claim in finding.claims],
                "pictures": [picture.name for picture in finding.pictures],
            }
            for finding in findings
        ],
    }


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _array(array: np.ndarray) -> Any:
    if array.dtype.kind in "iub":
        return array.tolist()
    return np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist()
