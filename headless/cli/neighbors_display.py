"""What `headless neighbors` prints."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def _table(title: str, columns: Sequence[str], numbers: int) -> Table:
    """A table whose last columns are numbers; its title is printed, so that it may be longer."""
    Console().print(Text(title, style="italic"))
    table = Table(box=None, header_style="bold")
    for place, name in enumerate(columns):
        is_number = place >= len(columns) - numbers
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _text(token: str) -> str:
    return escape(repr(token))


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def show(result: dict[str, Any], place: Path | None) -> None:
    title = f"{result['model']}, {result['head']} head"
    store = result.get("store", {})
    if "tokens" in result:
        show_tokens(
            result["tokens"], f"{result['model']}, {result['table']} table", result["metric"]
        )
    elif "contexts" in result:
        for record in result["contexts"]:
            show_context(record, title)
        if not any(record["likeliest"] for record in result["contexts"]):
            name = result["model"]
            print(f"left out: the likeliest tokens: {name} has no LM head")
    else:
        size = store["rows"] * (2 * store["hidden_size"] + 4) / 2**20
        print(f"{place}: {store['rows']:,} contexts of {result['model']}, {size:,.1f} MiB")


def show_tokens(records: list[dict[str, Any]], title: str, metric: str) -> None:
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
