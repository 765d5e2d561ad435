"""What `headless neighbors` prints."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 10.0  # between two lines where nobody watches a bar


class Display:
    """Progress on standard error: a bar in a terminal, a line now and then in a log."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        self.name, self.live = name, console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.task = self.bars.add_task(escape(name), total=None)
        self.printed = time.monotonic()

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def report(self, done: int, total: int) -> None:
        """How many of them are done."""
        self.bars.update(self.task, completed=done, total=total)
        if not self.live and time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            print(f"{self.name}: {done:,} of {total:,}", file=sys.stderr, flush=True)


def _table(title: str, columns: Sequence[str], numbers: int) -> Table:
    """A table whose last columns are numbers; its title is printed, so that it may be longer."""
    Console().print(Text(title, style="italic"))
    table = Table(box=None, header_style="bold")
    for place, name in enumerate(columns):
        is_number = place >= len(columns) - numbers
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _text(token: str) -> str:
    """A token as it can be read: with its blanks."""
    return escape(repr(token))


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def show_tokens(records: list[dict[str, Any]], title: str, metric: str) -> None:
    """Nearest tokens, a table for each query."""
    for record in records:
        score = "distance²" if metric == "l2" else metric
        table = _table(f"{record['query']} ({title})", ["token", "id", score, "count"], 3)
        for near in record["neighbors"]:
            row = (str(near["token_id"]), f"{near['score']:.3f}", _count(near["count"]))
            table.add_row(_text(near["text"]), *row)
        Console().print(table)


def show_context(record: dict[str, Any], title: str) -> None:
    """What a context makes likely, beside it what it is specific for; and what a store says."""
    if record["likeliest"]:
        _show_next(record, title)
    if "contexts" not in record:
        return
    heading = "nearest stored contexts"
    if not record["likeliest"]:
        heading = f"{record['context']!r} ({title}): {heading}"
    table = _table(heading, ["text, next token marked", "distance²"], 1)
    for near in record["contexts"]:
        line = Text(_flat(near["before"]))
        line.append(f"[{_flat(near['token'])}]", style="bold")
        line.append(_flat(near["after"]))
        table.add_row(line, f"{near['distance']:.4g}")
    Console().print(table)
    if "mixture" not in record:
        return
    table = _table("the next token", ["token", "model", "neighbours", "mixture"], 3)
    for token in record["mixture"]:
        shares = (f"{token[name]:.4f}" for name in ("model", "knn", "mixture"))
        table.add_row(_text(token["text"]), *shares)
    Console().print(table)


def _show_next(record: dict[str, Any], title: str) -> None:
    specific = record["specific"]
    names = ["likeliest", "log p", "p"] + (["most specific", "PMI", "p "] if specific else [])
    table = _table(f"{record['context']!r} ({title})", names, 0)
    for place, token in enumerate(record["likeliest"]):
        row = [_text(token["text"]), *_probability(token)]
        if specific and place < len(specific):
            other = specific[place]
            row += [_text(other["text"]), f"{other['pmi']:.2f}", _probability(other)[1]]
        table.add_row(*row)
    Console().print(table)


def _flat(text: str) -> str:
    return text.replace("\n", "⏎")


def _probability(token: dict[str, Any]) -> tuple[str, str]:
    return f"{token['log_probability']:.2f}", f"{math.exp(token['log_probability']):.4f}"


def show_scores(scores: Any, title: str) -> None:
    """Nats a token with and without neighbours."""
    table = _table(title, ["", "nats / token"], 1)
    table.add_row("model", f"{scores.base_nats:.4f}")
    table.add_row("model and neighbours", f"{scores.knn_nats:.4f}")
    table.add_row("gain", f"{scores.gain:.4f} ± {scores.gain_error:.4f}")
    Console().print(table)
    how = "given" if scores.chosen_on_tokens == 0 else f"best on {scores.chosen_on_tokens:,} others"
    print(
        f"{scores.tokens:,} tokens, {scores.neighbors} neighbours, which hold {scores.covered:.1%} "
        f"of them; λ {scores.weight:g}, temperature {scores.temperature:g} ({how})"
    )
