"""Findings to files: a page to read, every number as JSON, every figure for a paper."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

import headless
from headless.analysis.record import Animation, Finding, Picture
from headless.analysis.tables import add_claims, add_scalars, anchor_of, tally
from headless.files import check_pieces, exclusive, finite, holds_json, write_text
from headless.pages.figures import clean_svg, drawing_style, svg_file
from headless.pages.film import Film, make_film
from headless.pages.page import Page
from headless.progress import Report

PAGE, NUMBERS, FIGURES = "analysis.html", "analysis.json", "figures"
FigureFormat = Literal["svg", "png", "pdf"]
WAIT_SECONDS = 600.0  # for another process that writes the same report
MAX_ARRAY = 4096  # entries of an array in analysis.json
DIGITS = 7  # of them; scalars are whole


def check_output(output: Path, overwrite: bool) -> None:
    """Whether there is room for an analysis, before hours of work.

    Raises:
        HeadlessError: a file, or an analysis, is in the way.
    """
    check_pieces(
        output,
        (NUMBERS, FIGURES, PAGE),
        overwrite=overwrite,
        is_ours=lambda directory: holds_json(directory / NUMBERS, "format", "findings"),
    )


def write_report(
    title: str,
    findings: Sequence[Finding],
    output: Path,
    *,
    about: Sequence[tuple[str, str]] = (),
    twin: str = "",
    formats: Sequence[FigureFormat] = ("svg", "png"),
    report: Report = lambda what, done, total: None,
) -> Path:
    """Write the page, the numbers and the figures; returns the page.

    Args:
        title: of the page: which model.
        findings: in the order in which they are read.
        output: the directory to write to; made where it is missing.
        about: what else a reader must know: model, text, tokens, versions.
        twin: what the random weights are that the claims were asked of as well; empty: none.
        formats: of the figures beside the page.
        report: is told of drawn figures.
    """
    pictures = [picture for finding in findings for picture in finding.pictures]
    animations = [film for finding in findings for film in finding.animations]
    total = len(pictures) + sum(len(film.frames) for film in animations)
    done = 0
    drawn: dict[str, str | Film] = {}
    with _beside(output) as beside:
        directory = beside / FIGURES
        directory.mkdir()
        for picture in pictures:
            report(picture.name, done, total)
            drawn[picture.name] = _draw(picture, directory, formats)
            done += 1
        for film in animations:
            made = _film(film, lambda k: report(film.name, done + k, total))  # noqa: B023
            (directory / f"{film.name}.gif").write_bytes(made.gif())
            drawn[film.name] = made
            done += len(film.frames)
        report("page", done, total)
        build_page(title, findings, about, drawn, twin).write(beside / PAGE)
        write_text(beside / NUMBERS, numbers_text(as_json(title, findings, about, twin)))
    return output / PAGE


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A directory in `output` for what is not complete; its pieces are put in place at the end.

    The numbers go first: they show whose the others are. The page is last.
    """
    with exclusive(output / NUMBERS, patience=WAIT_SECONDS):
        for left in output.glob(f".{FIGURES}-*"):  # by killed processes
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=f".{FIGURES}-") as temporary:
            beside = Path(temporary)
            yield beside
            os.replace(beside / NUMBERS, output / NUMBERS)
            if (output / FIGURES).exists():
                os.replace(output / FIGURES, beside / "old")
            os.replace(beside / FIGURES, output / FIGURES)
            os.replace(beside / PAGE, output / PAGE)


def _draw(picture: Picture, directory: Path, formats: Sequence[FigureFormat]) -> str:
    """The figure as SVG for the page, and its files."""
    figure = picture.draw()
    svg = svg_file(figure)
    for suffix in formats:
        path = directory / f"{picture.name}.{suffix}"
        if suffix == "svg":
            path.write_text(svg)
            continue
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        with drawing_style():  # on white: pictures without a ground cannot be read on a dark one
            figure.savefig(path, dpi=160, bbox_inches="tight", metadata=metadata, facecolor="white")
    return clean_svg(svg)


def _film(animation: Animation, report: Callable[[int], None]) -> Film:
    def frames() -> Iterator[Any]:
        for index in range(len(animation.frames)):
            report(index)
            yield animation.draw(index)

    return make_film(frames(), animation.frames, seconds=animation.seconds)


def build_page(
    title: str,
    findings: Sequence[Finding],
    about: Sequence[tuple[str, str]],
    drawn: Mapping[str, Any],
    twin: str = "",
) -> Page:
    """The page: what the sources say and this model does, then every finding.

    `drawn` are SVGs and films by the names of pictures and animations.
    """
    page = Page(title, f"{len(findings)} analyses", contents=True)
    add_claims(page, findings, twin)
    for finding in findings:
        page.heading(finding.title, anchor=anchor_of(finding))
        page.paragraph(finding.about)
        if finding.answer:
            page.notes([finding.answer], "note", "This model")
        first, rest = finding.pictures[:1], finding.pictures[1:]
        moving: tuple[Picture | Animation, ...] = (*first, *finding.animations, *rest)
        for shown in moving:
            add = page.figure if isinstance(shown, Picture) else page.film
            add(drawn[shown.name], shown.caption, wide=shown.wide)
        if scalars := finding.scalars:
            add_scalars(page, scalars)
    page.heading("How this was made")
    page.definitions(list(about))
    page.paragraph(
        f"Made by headless {headless.__version__}. `{NUMBERS}` beside this page has every number, "
        f"`{FIGURES}/` every picture."
    )
    return page


def as_json(
    title: str,
    findings: Sequence[Finding],
    about: Sequence[tuple[str, str]] = (),
    twin: str = "",
) -> dict[str, Any]:
    """All numbers as plain values; what is not finite is null, long arrays are left out."""
    return {
        "format": 1,
        "headless": headless.__version__,
        "title": title,
        "about": dict(about),
        "random_twin": twin or None,
        "tally": vars(tally([claim for finding in findings for claim in finding.claims])),
        "findings": [
            {
                "name": finding.name,
                "title": finding.title,
                "answer": finding.answer,
                "scalars": {name: finite(float(value)) for name, value in finding.scalars.items()},
                "arrays": {
                    name: _array(array)
                    for name, array in finding.arrays.items()
                    if array.size <= MAX_ARRAY
                },
                "claims": [vars(claim) for claim in finding.claims],
                "pictures": [picture.name for picture in finding.pictures],
                "animations": [film.name for film in finding.animations],
            }
            for finding in findings
        ],
    }


def _array(array: np.ndarray) -> Any:
    if array.dtype.kind not in "fc":
        return array.tolist()
    digits = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[object])
    rounded = digits(array) if array.size else array.astype(object)
    return np.where(np.isfinite(array), rounded, np.array(None)).tolist()


def numbers_text(numbers: Mapping[str, Any]) -> str:
    """`as_json` as text: an entry a line, but arrays of numbers on one."""
    text = json.dumps(numbers, indent=1, allow_nan=False)
    return re.sub(r'\[\n[^\[\]{}"]*\]', lambda m: f"[{' '.join(m[0][1:-1].split())}]", text) + "\n"
