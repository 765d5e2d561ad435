"""The parser of all commands: strict YAML, complaints of one line, list options in pieces."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import yaml
from jsonargparse import (
    ArgumentParser,
    Namespace,
    get_loader,
    set_dumper,
    set_loader,
    set_parsing_settings,
)

from headless.errors import HeadlessError, UnforeseenError
from headless.structured import load_yaml
from headless.training.imports import (
    DENIED,
    OPTION,
    PACKAGES,
    allow_import,
    restrict_imports,
)

MODE = "strict_yaml"
UNKNOWN = re.compile(r"(?:unrecognized arguments: (?:--)?|[Oo]ption '|[Kk]ey ['\"])([\w.]+)")
GROUP = re.compile(r"Group '([\w.]+)'")
COMPLAINT = re.compile(r"unrecognized arguments|not accept|is not expected|does not exist")


def _load(text: str) -> Any:
    load_yaml(text)
    return get_loader("yaml")(text)


def _dump(values: Any) -> str:
    return yaml.safe_dump(values, default_flow_style=False, allow_unicode=True, sort_keys=False)


set_loader(MODE, _load, (yaml.YAMLError,))
set_dumper(MODE, _dump)


def read_words(arguments: Sequence[str]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Each option, its value, and the words that they are; a word by itself has no option."""
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        option, equals, value = word.partition("=")
        if not word.startswith("--") or " " in option:
            yield "", word, [word]
        elif equals or not waiting or waiting[0].startswith("--"):
            yield option, value if equals else None, [word]
        else:
            following = waiting.pop(0)
            yield option, following, [word, following]


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
        set_parsing_settings(add_print_completion_argument=True)
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def known_keys(self) -> list[str]:
        """What an unknown key may have been meant to be: every option, as a dotted key."""
        return [a.dest for a in self._actions if a.dest not in ("help", argparse.SUPPRESS)]

    def parse_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None, **options: Any
    ) -> Namespace:
        """A list option that is given twice is a list of two."""
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


def with_lists(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments with every repeated list option as one list: `--prompt A --prompt B`.

    By itself the parser keeps the last one without a word. It appends where an option is spelled
    `--prompt+`, but takes the text apart ("HAMLET: to be" is a mapping in YAML), so that each value
    is handed over as a list of one, in JSON.
    """
    hints = {f"--{a.dest}": getattr(a, "_typehint", None) for a in parser._actions}
    # Lightning's have one value: a number of devices that is given again replaces the first.
    kinds = {n: k for n, h in hints.items() if (k := _kinds(h)) and not n.startswith("--trainer.")}
    given = list(read_words(arguments))
    times = Counter(option for option, _, _ in given)
    rest: list[str] = []
    seen: set[str] = set()
    for option, value, words in given:
        alone, inner = kinds.get(option, (False, set()))
        if option not in kinds or value is None or (alone and times[option] == 1):
            rest += words
            continue
        written = _as_list(value, is_text=not inner & {int, float})
        rest.append(f"{option}{'+' if option in seen else ''}={written}")
        seen.add(option)
    return rest


def _kinds(hint: Any) -> tuple[bool, set[Any]] | None:
    """Of a type that allows a list: whether a value alone is allowed, too, and what it holds."""
    parts = [hint] if get_origin(hint) is list else list(get_args(hint))
    inner = {kind for part in parts if get_origin(part) is list for kind in get_args(part)}
    values = {str, int, float}
    return (bool(values & set(parts)), inner) if inner and inner <= values | {Path} else None


def _as_list(value: str, *, is_text: bool) -> str:
    """A value as a list of one; what is written as a list, or as nothing, stays."""
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        read = value
    if isinstance(read, list) or read is None:
        return value
    return json.dumps([value], ensure_ascii=False) if is_text else f"[{value}]"


# -- what may be imported ---------------------------------------------------------------------


def take_imports(arguments: Sequence[str]) -> list[str]:
    """Import what `--import MODULE` names and return the other arguments."""
    rest: list[str] = []
    for option, value, words in read_words(arguments):
        if option != OPTION:
            rest += words
        elif value:
            allow_import(value)
        else:
            raise HeadlessError(f"{OPTION} needs the name of a module: {OPTION} my_objectives")
    return rest
