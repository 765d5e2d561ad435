"""JSON and YAML files as they are read: of the expected type, or refused in a line."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from headless.errors import HeadlessError, one_line

T = TypeVar("T")
DEEPEST = 100  # levels of a YAML text
TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
UNFOLDED = 100_000  # values that its aliases may stand for
TEXT, WHOLE, NUMBER = (str,), (int,), (int, float)
Kinds = Mapping[str, tuple[type, ...]]  # what an entry may be, besides missing and null
TYPE_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    bool: "true or false",
}


def read_json(path: Path, kind: type[T]) -> T:
    """The content of a JSON file that must be a `kind`: dict or list."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeadlessError(f"{path} is damaged, it is no JSON: {one_line(error)}") from error
    if not isinstance(value, kind):
        raise HeadlessError(
            f"{path} is damaged: it holds a {type(value).__name__} instead of a {kind.__name__}"
        )
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file of keys and values; empty for an empty file."""
    from yaml import YAMLError

    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, YAMLError) as error:
        raise HeadlessError(f"{path} is no proper YAML: {one_line(error)}") from error
    if value is not None and not isinstance(value, dict):
        raise HeadlessError(f"{path} holds a {type(value).__name__} instead of keys and values")
    return value or {}


def load_yaml(text: str) -> Any:
    """What a YAML text says, refused where readers take in silence what cannot be meant.

    That is a key given twice, and aliases or levels without end.

    Raises:
        yaml.YAMLError: names the line.
    """
    import yaml

    loader = yaml.SafeLoader(StringIO(text))  # of a text, an error would quote the line
    loader.name = "<unicode string>"
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _size(root, {}, DEEPEST)
        return loader.construct_document(root)
    except RecursionError as error:
        raise yaml.constructor.ConstructorError(None, None, TOO_DEEP) from error
    finally:
        loader.dispose()


def _size(node: Any, sizes: dict[int, int], levels: int) -> int:
    """How many values a node stands for, its aliases unfolded; at most so many levels of them."""
    from yaml.constructor import ConstructorError

    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 1  # in itself
    problem, mark = TOO_DEEP if levels < 0 else None, node.start_mark
    parts = node.value if node.id == "sequence" else []
    if node.id == "mapping":
        parts = [part for pair in node.value for part in pair]
        known: set[str] = set()
        for key in (key for key, _ in node.value if key.id == "scalar"):
            if key.value in known:
                problem = f"the key {key.value!r} is given twice: keep one of them"
                mark = key.start_mark
            known.add(key.value)
    total = 1 if problem else 1 + sum(_size(part, sizes, levels - 1) for part in parts)
    if total > UNFOLDED:
        problem = f"its aliases stand for more than {UNFOLDED:,} values"
    if problem:
        raise ConstructorError(None, None, problem, mark)
    sizes[id(node)] = total
    return total


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # an integer can be larger


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_entries(
    path: Path, values: Any, kinds: Kinds, needs: Sequence[str] = ()
) -> dict[str, Any]:
    """`values` as they were read from a file, which must be a mapping with entries of these kinds.

    Args:
        kinds: a dotted key is of an entry below another.
        needs: entries that may not be missing or null.
    """
    if not isinstance(values, dict):
        raise damaged(path, f"it holds {_type_name(values)}, not names with values")
    if not all(isinstance(key, str) for key in values):
        raise damaged(path, "a name in it is not a text")
    flat = dict(flatten(values))
    for key, expected in kinds.items():
        value = flat.get(key) if "." in key else values.get(key)
        if value is not None and not _fits(value, expected):
            words = " or ".join(TYPE_NAMES[kind] for kind in expected)
            raise damaged(path, f"{key} is {_type_name(value)}, not {words}")
    if missing := [name for name in needs if values.get(name) is None]:
        raise damaged(path, f"{missing[0]} is missing")
    return values


def damaged(path: Path, why: str) -> HeadlessError:
    """The complaint about a file among others that a command could do without."""
    return HeadlessError(
        f"{path} is damaged ({one_line(why)}): leave {path.parent} out, or move the file aside"
    )


def _fits(value: Any, expected: tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, expected):
        return False
    return is_number(value) or not isinstance(value, int | float)


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)
