"""A page: blocks in order, rendered to one HTML file that needs no network and no script.

Everything that a caller passes as text is escaped; `back quotes` in paragraphs, notes, captions
and list items become code. Figures and tables are numbered in the order in which they come.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headless.files import write_text
from headless.pages.figures import prefix_ids, render_svg
from headless.pages.film import Film


@dataclass(frozen=True)
class Cell:
    """A table's cell."""

    text: str
    detail: str = ""  # a second line, small and muted: an interval, a unit
    strong: bool = False  # the best of its column
    swatch: int | None = None  # draws the colour of this series before the text
    code: bool = False  # set in the fixed-width font, breaking anywhere
    to: str = ""  # the anchor of a heading of the page that the text leads to


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, a second muted line (the unit), alignment, a group above."""

    name: str
    unit: str = ""
    align: Literal["left", "right"] = "right"
    group: str = ""


@dataclass(frozen=True)
class TextCard:
    """A text beside others: what was given, and how it went on."""

    title: str
    text: str
    lead: str = ""
    swatch: int | None = None


class Page:
    """Collects blocks; `render` makes the HTML. With `contents` a list of the headings opens it."""

    def __init__(self, title: str, subtitle: str = "", *, contents: bool = False) -> None:
        self.title = title
        self.subtitle = subtitle
        self.contents = contents
        self.refresh_seconds = 0  # after which a browser loads the page again; 0: never
        self._blocks: list[dict[str, Any]] = []
        self._into = self._blocks
        self._headings: list[tuple[str, str]] = []
        self._figures = self._tables = self._drawings = self._films = 0
        self._frames = 0  # of the longest film

    def heading(self, text: str, level: Literal[2, 3] = 2, *, anchor: str = "") -> None:
        """A section's heading, or with level 3 a subsection's, which the contents leave out.

        `anchor` is an id that is unique in the page, for `Cell.to`; a section has one anyway.
        """
        if level == 2:
            anchor = anchor or f"section-{len(self._headings) + 1}"
            self._headings.append((anchor, text))
        self._add("heading", text=text, level=level, anchor=anchor)

    def paragraph(self, text: str) -> None:
        self._add("paragraph", text=inline(text))

    def definitions(self, terms: Sequence[tuple[str, str]]) -> None:
        """Terms and what they mean."""
        self._add("definitions", entries=[(term, inline(text)) for term, text in terms])

    def notes(
        self, notes: Sequence[str], kind: Literal["note", "warning"] = "note", title: str = ""
    ) -> None:
        """A box with what a reader must know before believing a number."""
        self._add("notes", entries=list(map(inline, notes)), style=kind, title=title)

    def code(self, text: str) -> None:
        """Commands or a config, to copy."""
        self._add("code", text=text)

    def cards(self, cards: Sequence[TextCard]) -> None:
        """Texts side by side."""
        self._add("cards", cards=list(cards))

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell | str]],
        caption: str = "",
        *,
        wide: bool = False,
    ) -> None:
        """A table; a captioned one is numbered, a `wide` one may be wider than the text."""
        cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
        for row in cells:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns")
        groups = [(name, len(list(same))) for name, same in groupby(c.group for c in columns)]
        shown = groups if any(name for name, _ in groups) else []
        self._tables += bool(caption)
        named = {"caption": inline(caption), "number": self._tables}
        self._add("table", columns=list(columns), groups=shown, rows=cells, wide=wide, **named)

    def figure(self, figure: Any, caption: str = "", *, wide: bool = False) -> None:
        """A figure: a matplotlib figure, or an `<svg>` element as text, trusted as it is."""
        self._drawings += 1
        svg = figure if isinstance(figure, str) else render_svg(figure)
        label = escape(caption.replace("`", "") or "figure")
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
        drawing = Markup(prefix_ids(svg, f"figure-{self._drawings}-"))
        self._add("figure", drawing=drawing, **self._captioned(caption), wide=wide)

    def film(self, film: Film, caption: str = "", *, wide: bool = False) -> None:
        """A moving picture with its frames below it, each of which stops it, without a script; on
        paper, and for readers who want less motion, its last frame."""
        self._films += 1
        self._frames = max(self._frames, len(film.labels))
        self._add(
            "film",
            frames=list(zip(film.labels, film.addresses(), strict=True)),
            index=self._films,
            size=film.size,
            duration=f"{film.seconds * len(film.labels):.4g}",
            **self._captioned(caption),
            wide=wide,
        )

    @contextmanager
    def details(self, summary: str) -> Iterator[None]:
        """What is added inside is folded away below a line; printed pages show it."""
        inside: list[dict[str, Any]] = []
        self._add("details", summary=summary, blocks=inside)
        before, self._into = self._into, inside
        try:
            yield
        finally:
            self._into = before

    def render(self) -> str:
        style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
        return _templates().get_template("page.html").render(
            title=self.title,
            refresh_seconds=self.refresh_seconds,
            subtitle=inline(self.subtitle),
            style=Markup(style.rstrip()),
            headings=self._headings if self.contents else [],
            blocks=self._blocks,
            frames=self._frames,
        )  # fmt: skip

    def fragment(self) -> str:
        """The blocks alone, to show in a page of another: a notebook."""
        blocks: Any = _templates().get_template("blocks.html").module
        return str(blocks.show(self._blocks))

    def write(self, path: Path) -> None:
        """Write the HTML beside `path`, flush it and rename: the old page or the new one."""
        write_text(path, self.render())

    def _captioned(self, caption: str) -> dict[str, Any]:
        self._figures += bool(caption)
        return {"caption": inline(caption), "number": self._figures}

    def _add(self, kind: str, **values: Any) -> None:
        self._into.append({"kind": kind, **values})


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("headless.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str) -> Markup:
    """Escaped text that may be broken after a dot or a slash: dotted names and paths."""
    return Markup(re.sub(r"([./])(?=\w)", r"\1<wbr>", str(escape(text))))


def inline(text: str) -> Markup:
    """Escaped text in which `back quotes` are code, and [words](./file) a link to a file nearby."""
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\[([^\]]+)\]\((\.{1,2}/[^()\s]+)\)", r'<a href="\2">\1</a>', coded))
