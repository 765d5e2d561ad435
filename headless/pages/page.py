"""A page: blocks in order, rendered to one HTML file that needs no network and no script.

Everything that a caller passes as text is escaped; `back quotes` in paragraphs, notes, captions
and list items become code. Figures and tables are numbered in the order in which they come.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headless.files import write_text
from headless.pages.figures import prefix_ids, render_svg
from headless.pages.film import Film

Align = Literal["left", "right"]
NoteKind = Literal["note", "warning"]


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Args:
        text: what it says.
        detail: a second line, small and muted: an interval, a unit.
        strong: the best of its column.
        swatch: draws the colour of this series before the text.
        code: set in the fixed-width font, breaking anywhere.
        to: the anchor of a heading of the page that the text leads to.
    """

    text: str
    detail: str = ""
    strong: bool = False
    swatch: int | None = None
    code: bool = False
    to: str = ""


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, a second muted line (the unit), alignment, a group above."""

    name: str
    unit: str = ""
    align: Align = "right"
    group: str = ""


@dataclass(frozen=True)
class TextCard:
    """A text beside others: what was given, and how it went on."""

    title: str
    text: str
    lead: str = ""
    swatch: int | None = None


@dataclass
class _Block:
    kind: str
    values: dict[str, Any]
    blocks: list["_Block"] = field(default_factory=list)


class Page:
    """Collects blocks; `render` makes the HTML.

    Args:
        title: of the page and of the browser's window.
        subtitle: a line below it.
        contents: whether a list of the second-level headings opens the page.
    """

    def __init__(self, title: str, subtitle: str = "", *, contents: bool = False) -> None:
        self.title = title
        self.subtitle = subtitle
        self.contents = contents
        self._blocks: list[_Block] = []
        self._into = self._blocks
        self._headings: list[tuple[str, str]] = []
        self._figures = self._tables = self._drawings = self._films = 0
        self._frames = 0  # of the longest film

    def heading(self, text: str, level: Literal[2, 3] = 2, *, anchor: str = "") -> None:
        """A section's heading, or with level 3 a subsection's.

        Args:
            text: of the heading.
            level: 2 for what the contents list.
            anchor: an id that is unique in the page, for `Cell.to`; a section has one anyway.
        """
        if level == 2:
            anchor = anchor or f"section-{len(self._headings) + 1}"
            self._headings.append((anchor, text))
        self._add("heading", text=text, level=level, anchor=anchor)

    def paragraph(self, text: str) -> None:
        """Running text."""
        self._add("paragraph", text=inline(text))

    def bullets(self, items: Sequence[str]) -> None:
        """A list."""
        self._add("bullets", entries=[inline(item) for item in items])

    def definitions(self, items: Sequence[tuple[str, str]]) -> None:
        """Terms and what they mean."""
        self._add("definitions", entries=[(term, inline(text)) for term, text in items])

    def notes(self, items: Sequence[str], kind: NoteKind = "note", title: str = "") -> None:
        """A box with what a reader must know before believing a number."""
        self._add("notes", entries=[inline(item) for item in items], style=kind, title=title)

    def code(self, text: str) -> None:
        """Commands or a config, to copy."""
        self._add("code", text=text)

    def cards(self, cards: Sequence[TextCard], caption: str = "") -> None:
        """Texts side by side."""
        self._add("cards", cards=list(cards), caption=inline(caption))

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell | str]],
        caption: str = "",
        *,
        wide: bool = False,
    ) -> None:
        """A table; a captioned one is numbered, a `wide` one may be wider than the text.

        Raises:
            ValueError: a row with another number of cells than there are columns.
        """
        cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
        for row in cells:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns")
        groups: list[list[Any]] = []
        for column in columns:
            if groups and groups[-1][0] == column.group:
                groups[-1][1] += 1
            else:
                groups.append([column.group, 1])
        self._tables += bool(caption)
        self._add(
            "table",
            columns=list(columns),
            groups=groups if any(name for name, _ in groups) else [],
            rows=cells,
            caption=inline(caption),
            number=self._tables,
            wide=wide,
        )

    def figure(self, figure: Any, caption: str = "", *, wide: bool = False) -> None:
        """A figure: a matplotlib figure, or an `<svg>` element as text, trusted as it is."""
        self.figure_grid([(figure, "")], caption, columns=1, wide=wide)

    def figure_grid(
        self,
        figures: Sequence[tuple[Any, str]],
        caption: str = "",
        *,
        columns: int = 2,
        wide: bool = False,
    ) -> None:
        """Figures with captions of their own in a grid below one number and caption."""
        drawn = []
        for figure, text in figures:
            self._drawings += 1
            svg = figure if isinstance(figure, str) else render_svg(figure)
            label = escape(re.sub("`", "", text or caption or "figure"))
            svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
            drawn.append((Markup(prefix_ids(svg, f"figure-{self._drawings}-")), inline(text)))
        self._figures += bool(caption)
        self._add(
            "figures",
            figures=drawn,
            caption=inline(caption),
            number=self._figures,
            columns=columns,
            wide=wide,
        )

    def film(self, film: Film, caption: str = "", *, wide: bool = False) -> None:
        """A moving picture with its frames below it: any of them stops it, without a script.

        Who asks for less motion, and who prints, sees the last frame.
        """
        self._films += 1
        self._frames = max(self._frames, len(film.labels))
        self._figures += bool(caption)
        self._add(
            "film",
            frames=list(zip(film.labels, film.addresses(), strict=True)),
            index=self._films,
            count=len(film.labels),
            size=(film.width, film.height),
            duration=f"{film.seconds * len(film.labels):.4g}",
            caption=inline(caption),
            number=self._figures,
            wide=wide,
        )

    @contextmanager
    def details(self, summary: str, *, open: bool = False) -> Iterator[None]:
        """What is added inside is folded away below a line; printed pages show it."""
        block = self._add("details", summary=summary, open=open)
        before, self._into = self._into, block.blocks
        try:
            yield
        finally:
            self._into = before

    def render(self) -> str:
        """The HTML."""
        environment = _templates()
        style = environment.loader.get_source(environment, "page.css")[0]  # type: ignore[union-attr]
        return environment.get_template("page.html").render(
            title=self.title,
            subtitle=inline(self.subtitle),
            style=Markup(style.rstrip()),
            headings=self._headings if self.contents else [],
            blocks=self._blocks,
            frames=self._frames,
        )

    def fragment(self) -> str:
        """The blocks alone, to show in a page of another: a notebook."""
        blocks: Any = _templates().get_template("blocks.html").module
        return str(blocks.show(self._blocks))

    def write(self, path: Path) -> None:
        """Write the HTML beside `path`, flush it and rename: the old page or the new one."""
        write_text(path, self.render())

    def _add(self, kind: str, **values: Any) -> _Block:
        block = _Block(kind, values)
        self._into.append(block)
        return block


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
