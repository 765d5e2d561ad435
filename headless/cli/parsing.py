"""Typed functions as commands: the signature is the schema and the docstring is the help."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_dumper, set_loader

from headless.cli.repeated import with_lists
from headless.errors import HeadlessError, UnforeseenError
from headless.structured import check_yaml
from headless.training.imports import DENIED, OPTION, PACKAGES, restrict_imports

MODE = "strict_yaml"
SEEDS = ("seed", "seeds", "split_seed")  # whichever a command has: numpy takes 32 bits


def leaf_keys(parser: argparse.ArgumentParser) -> list[str]:
    """Every option that a parser accepts, as dotted keys."""
    return [
        action.dest for action in parser._actions if action.dest not in ("help", "==SUPPRESS==")
    ]


def _load(text: str) -> Any:
    check_yaml(text)
    return get_loader("yaml")(text)


def _dump(values: Any) -> str:
    return yaml.safe_dump(values, default_flow_style=False, allow_unicode=True, sort_keys=False)


set_loader(MODE, _load, (yaml.YAMLError,))
set_dumper(MODE, _dump)

UNKNOWN = re.compile(r"(?:unrecognized arguments: (?:--)?|[Oo]ption '|[Kk]ey ['\"])([\w.]+)")
GROUP = re.compile(r"Group '([\w.]+)'")
COMPLAINT = re.compile(r"unrecognized arguments|not accept|is not expected|does not exist")


def suggest(message: str, keys: Iterable[str]) -> str:
    """One line from a parser's message, with the nearest valid key where a key was unknown."""
    line = " ".join(message.replace('in "<unicode string>", ', "in ").split())
    if denied := DENIED.search(line):
        name, package = denied.group(1), denied.group(1).split(".")[0]
        if package in PACKAGES:
            return f"{name} runs whatever it is given: a config may not name it"
        return (
            f"a config names the parts of {', '.join(PACKAGES)}, and {name} is none: where it is "
            f"yours, allow it with {OPTION} {package}"
        )
    unknown = UNKNOWN.search(line)
    if unknown is None or COMPLAINT.search(line) is None:
        return line
    wrong, candidates = unknown.group(1), list(keys)
    if group := GROUP.search(line):
        wrong = f"{group.group(1)}.{wrong}"
    near = get_close_matches(wrong, candidates, n=1, cutoff=0.5)
    if not near:  # the key may be right but for where it stands
        last = {key.split(".")[-1]: key for key in candidates}
        near = [last[key] for key in get_close_matches(wrong.split(".")[-1], last, n=1)]
    return f"{line}; did you mean {near[0]!r}?" if near and near[0] != wrong else line


class CommandParser(ArgumentParser):
    """A jsonargparse parser whose complaints are one line for `headless.cli.main.fail`.

    It takes no key twice, and imports what a value names only where that is allowed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        restrict_imports()
        super().__init__(*args, **{"parser_mode": MODE, **kwargs})

    def known_keys(self) -> list[str]:
        """What an unknown key may have been meant to be."""
        return leaf_keys(self)

    def parse_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None, **options: Any
    ) -> Namespace:
        """As it is, but that a list option given twice is a list of two."""
        given = sys.argv[1:] if args is None else args
        if isinstance(given, list):
            given = with_lists(self, given)
        try:
            return super().parse_args(given, namespace, **options)
        except (HeadlessError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a value that the library did not foresee
            raise UnforeseenError(f"the options cannot be read: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what a user can mend instead of printing usage and exiting."""
        raise HeadlessError(suggest(message, self.known_keys())) from ex


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
    for option in SEEDS:
        value = options.get(option)
        for seed in value if isinstance(value, list) else [value]:
            if isinstance(seed, int) and not 0 <= seed < 2**32:
                raise HeadlessError(f"{option} must be from 0 to 4294967295, got {seed}")
    return function(**options)
