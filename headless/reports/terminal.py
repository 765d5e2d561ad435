"""A comparison in a terminal: as many columns side by side as fit, the others below."""

import shutil
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from headless.pages.page import Cell
from headless.reports.fairness import inexact
from headless.reports.groups import runs_of
from headless.reports.sections import Compared, sheets_of
from headless.reports.tables import Sheet

GAP = 2  # between columns
MAX_WORD = 24  # longer ones are broken
HEADING = 16  # of a column with short numbers


def show(compared: Compared) -> None:
    """Print the headline numbers, one row a number and one column a recipe, and what to know."""
    console = Console(width=shutil.get_terminal_size().columns)
    for title, sheet in sheets_of(compared):
        if title:
            console.print(f"\n{escape(title)}", style="bold", highlight=False)
        _print(console, sheet)
        if not title:
            for note in inexact(compared.groups):
                console.print(escape(note), style="dim", highlight=False)
    if compared.tuned:
        count = len(runs_of(compared.tuned))
        console.print(f"fine-tuned LM heads, in the report: {count}", highlight=False)
    # Whole lines: a path that the terminal breaks can be copied, one that we break cannot.
    notes = [("dim", "left out", compared.left_out), ("yellow", "warning", compared.warnings)]
    for style, kind, sentences in notes:
        for sentence in sentences:
            line = f"[{style}]{kind}:[/{style}] {escape(sentence)}"
            console.print(line, highlight=False, soft_wrap=True)


def _print(console: Console, sheet: Sheet) -> None:
    """A page's table on its side, in parts below each other of as many columns as fit."""
    columns, rows = sheet
    names = [Text.assemble(c.name, (f" {c.unit}" if c.unit else "", "dim")) for c in columns[1:]]
    left = [_block([c if isinstance(c, Cell) else Cell(c) for c in row]) for row in rows]
    words = [len(word) for name in names for word in name.plain.split()]
    while left:
        grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        room = console.width - max(words, default=0)
        part = [block for block in left if (room := room - GAP - block[0]) >= 0] or left[:1]
        left = left[len(part) :]
        grid.add_column("", overflow="fold")
        for width, heading, _ in part:
            width = min(width, console.width // 2)
            grid.add_column(heading, justify="right", overflow="fold", width=width)
        for name, *cells in zip(names, *(cells for *_, cells in part), strict=True):
            grid.add_row(name, *cells)
        console.print(grid)
        if left:
            console.print()


def _block(row: Sequence[Cell]) -> tuple[int, Text, list[Text]]:
    """The width of a row's column, its heading, and its cells; only the heading is broken."""
    about = f", {row[0].detail}" if row[0].detail else ""
    heading = Text.assemble((row[0].text, "bold"), (about, "dim"))
    cells = [
        Text.assemble((c.text, "bold" if c.strong else ""), (f" {c.detail}".rstrip(), "dim"))
        for c in row[1:]
    ]
    words = [min(cell_len(word), MAX_WORD) for word in heading.plain.split()]
    return max([HEADING, *words, *(cell.cell_len for cell in cells)]), heading, cells
