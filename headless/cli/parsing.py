"""Typed functions as commands: the signature is the schema and the docstring is the help."""

import argparse
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from headless.errors import HeadlessError


def leaf_keys(parser: argparse.ArgumentParser) -> list[str]:
    """Every option that a parser accepts, as dotted keys."""
    return [
        action.dest for action in parser._actions if action.dest not in ("help", "==SUPPRESS==")
    ]


def suggest(message: str, keys: Iterable[str]) -> str:
    """One line from a parser's message, with the nearest valid key where a key was unknown."""
    line = " ".join(message.split())
    unknown = re.search(r"(?:[Uu]nrecognized arguments:|[Kk]ey) ['\"]?(?:--)?([\w.]+)", line)
    if unknown and re.search("nrecognized|not expected|does not exist|not accepted", line):
        wrong, candidates = unknown.group(1), list(keys)
        near = get_close_matches(wrong, candidates, n=1, cutoff=0.5) or [
            key for key in candidates if key.split(".")[-1] == wrong.split(".")[-1]
        ]
        if near:
            return f"{line}; did you mean {near[0]!r}?"
    return line


class CommandParser(ArgumentParser):
    """A jsonargparse parser whose complaints are one line for `headless.cli.main.fail`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what a user can mend instead of printing usage and exiting."""
        raise HeadlessError(suggest(message, leaf_keys(self))) from ex


def run(function: Callable[..., Any], arguments: list[str], name: str) -> Any:
    """Parse `arguments` by the signature of `function` and call it.

    Raises:
        HeadlessError: an unknown key or a value of the wrong type.
    """
    parser = CommandParser(
        prog=f"headless {name}",
        description=(function.__doc__ or "").split("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with these options")
    parser.add_function_arguments(function, as_group=False)
    options: Namespace = parser.instantiate_classes(parser.parse_args(arguments))
    options.pop("config", None)
    return function(**options)
