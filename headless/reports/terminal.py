"""A comparison in a terminal: as many columns side by side as fit, the others below."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from headless.pages.page import Cell
from headless.reports.fairness import inexact
from headless.reports.groups import runs_of
from headless.reports.sections import Compared, Sheet, sheets_of

GAP = 2  # between columns
MAX_WORD = 24  # longer ones are broken
MAX_HEADING = 32


@dataclass(frozen=True)
class Block:
    """A column: its heading over a text for every row."""

    heading: Text
    cells: Sequence[Text]

    @property
    def least(self) -> int:
        """Its width where the heading is broken between words and no cell is."""
        words = max((cell_len(word) for word in self.heading.plain.split()), default=0)
        return max(min(words, MAX_WORD), *(cell.cell_len for cell in self.cells))

    @property
    def most(self) -> int:
        """Its width where nothing is broken, up to a limit."""
        return max(self.least, min(MAX_HEADING, self.heading.cell_len))


def show(compared: Compared) -> None:
    """Print the headline numbers, one row a number and one column a recipe, and what to know."""
    console = Console(width=shutil.get_terminal_size().columns)
    for sheet in sheets_of(compared):
        if sheet[0]:
            console.print(f"\n{escape(sheet[0])}", style="bold", highlight=False)
        _print(console, sheet)
        if not sheet[0]:
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
    _, columns, rows = sheet
    names = [Text.assemble(c.name, (f" {c.unit}" if c.unit else "", "dim")) for c in columns[1:]]
    headings = Block(Text(), names)
    left = [
        _block([cell if isinstance(cell, Cell) else Cell(cell) for cell in row]) for row in rows
    ]
    while left:
        room = console.width - headings.least - GAP - left[0].least
        count = 1
        while count < len(left) and (room := room - GAP - left[count].least) >= 0:
            count += 1
        _print_part(console, headings, left[:count])
        left = left[count:]
        if left:
            console.print()


def _block(row: Sequence[Cell]) -> Block:
    about = f", {row[0].detail}" if row[0].detail else ""
    heading = Text.assemble((row[0].text, "bold"), (about, "dim"))
    return Block(heading, [_text(cell) for cell in row[1:]])


def _text(cell: Cell) -> Text:
    detail = f" {cell.detail}" if cell.detail else ""
    return Text.assemble((cell.text, "bold" if cell.strong else ""), (detail, "dim"))


def _print_part(console: Console, names: Block, blocks: Sequence[Block]) -> None:
    table = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column("", overflow="fold")
    spare = console.width - names.least - sum(GAP + block.least for block in blocks)
    for place, block in enumerate(blocks):
        more = max(0, min(block.most - block.least, spare // (len(blocks) - place)))
        spare -= more
        table.add_column(
            block.heading,
            justify="right",
            overflow="fold",
            min_width=min(block.least, console.width // 2),
            max_width=block.least + more,
        )
    for place, name in enumerate(names.cells):
        table.add_row(name, *(block.cells[place] for block in blocks))
    console.print(table)
