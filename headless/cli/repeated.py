"""An option that takes a list may be given several times: `--prompt A --prompt B`.

By itself the parser keeps the last one without a word. It appends where an option is spelled
`--prompt+`, but takes the text apart ("HAMLET: to be" is a mapping in YAML), so that each value is
handed over as a list of one, in JSON.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import yaml


def with_lists(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments with every repeated list option as one list.

    Args:
        parser: knows the options and their types.
        arguments: as on the command line.
    """
    options = {f"--{a.dest}": a for a in parser._actions if f"--{a.dest}" in a.option_strings}
    kinds = {name: _kinds(getattr(action, "_typehint", None)) for name, action in options.items()}
    # Lightning's have one value: a number of devices that is given again replaces the first.
    lists = {n for n, found in kinds.items() if list in found and not n.startswith("--trainer.")}
    times = Counter(name for name, _, _ in map(_parts, arguments) if name in lists)
    found: list[str] = []
    seen: set[str] = set()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = _parts(argument)
        alone = times[name] == 1 and kinds.get(name, set()) & {str, int, float}
        if name not in lists or alone:
            found.append(argument)
            continue
        if not equals and (value := next(rest, "")) == "":
            return list(arguments)  # nothing follows: the parser's own complaint
        written = _as_list(value, is_text=not kinds[name] & {"numbers"})
        found.append(f"{name}{'+' if name in seen else ''}={written}")
        seen.add(name)
    return found


def _parts(argument: str) -> tuple[str, str, str]:
    name, equals, value = argument.partition("=")
    return (name, equals, value) if argument.startswith("--") else (argument, "", "")


def _kinds(hint: Any) -> set[Any]:
    """What an option's type allows: str, int, float, list, and "numbers" for what a list holds."""
    if get_origin(hint) is list:
        inner = set(get_args(hint))
        simple = bool(inner) and all(isinstance(i, type) for i in inner)
        return ({list, "numbers"} if inner & {int, float} else {list}) if simple else set()
    parts = get_args(hint)
    return set().union(*map(_kinds, parts)) if parts else {hint}


def _as_list(value: str, *, is_text: bool) -> str:
    """A value as a list of one; what is written as a list, or as nothing, stays."""
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        read = value
    if isinstance(read, list) or read is None:
        return value
    return json.dumps([value], ensure_ascii=False) if is_text else f"[{value}]"
