"""A comparison in a terminal: as many columns side by side as fit, the others below."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from headless.pages.page import Cell, Column
from headless.reports.comparison import Comparison
from headless.reports.fairness import inexact
from headless.reports.finetunings import table_cells, task_tables
from headless.reports.headline import headline

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


def show(comparison: Comparison) -> None:
    """Print the headline numbers, one row a number and one column a recipe, and what to know."""
    console = Console(width=shutil.get_terminal_size().columns)
    if comparison.groups:
        _print(console, *headline(comparison.groups))
        for note in inexact(comparison.groups):
            console.print(escape(note), style="dim", highlight=False)
    for task in task_tables(comparison.finetunings):
        console.print(f"\n{escape(task.title)}", style="bold", highlight=False)
        _print(console, *table_cells(task))
    if comparison.tuned:
        count = sum(len(group.runs) for group in comparison.tuned)
        console.print(f"fine-tuned LM heads, in the report: {count}", highlight=False)
    for note in comparison.left_out:
        # Whole lines: a path that the terminal breaks can be copied, one that we break cannot.
        console.print(f"[dim]left out:[/dim] {escape(note)}", highlight=False, soft_wrap=True)
    for warning in comparison.warnings:
        console.print(
            f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True
        )


def _name(name: str, unit: str) -> Text:
    return Text.assemble(name, (f" {unit}" if unit else "", "dim"))


def _block(row: Sequence[Cell]) -> Block:
    about = f", {row[0].detail}" if row[0].detail else ""
    heading = Text.assemble((row[0].text, "bold"), (about, "dim"))
    return Block(heading, [_cell(cell) for cell in row[1:]])


def _cell(cell: Cell) -> Text:
    detail = f" {cell.detail}" if cell.detail else ""
    return Text.assemble((cell.text, "bold" if cell.strong else ""), (detail, "dim"))


def _print(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """A page's table on its side, in parts below each other of as many columns as fit."""
    names = Block(Text(), [_name(column.name, column.unit) for column in columns[1:]])
    left = [_block(row) for row in rows]
    while left:
        room = console.width - names.least - GAP - left[0].least
        count = 1
        while count < len(left) and (room := room - GAP - left[count].least) >= 0:
            count += 1
        _print_table(console, names, left[:count])
        left = left[count:]
        if left:
            console.print()


def _print_table(console: Console, names: Block, blocks: Sequence[Block]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
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
