"""The files of a run directory, read and checked: what is wrong in one is said, not carried on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from headless.errors import HeadlessError
from headless.pages.numbers import is_number
from headless.reports.settings import flatten

TEXT, WHOLE, NUMBER = (str,), (int,), (int, float)
Kinds = Mapping[str, tuple[type, ...]]  # what an entry may be, besides missing and null
CONFIG: Kinds = {
    "seed_everything": WHOLE,
    "model.objective.class_path": TEXT,
    "model.backbone.hidden_size": WHOLE,
    "model.optimizer.lr": NUMBER,
    "model.init_from": TEXT,
    "model.init_head": TEXT,
    "data.path": TEXT,
}
SUMMARY: Kinds = {
    "objective": TEXT,
    "objective_class": TEXT,
    "backbone": TEXT,
    "begins_from": TEXT,
    "tokenizer_sha256": TEXT,
    "dataset_sha256": TEXT,
    "memory_kind": TEXT,
    "seed": WHOLE,
    "hidden_size": WHOLE,
    "wall_seconds": NUMBER,
    "last": (dict,),
}
ENVIRONMENT: Kinds = {"gpus": (list,), "packages": (dict,)}
SAMPLE: Kinds = {"prompt": TEXT, "text": TEXT, "progress/tokens": NUMBER}
EVALUATION: Kinds = {
    "kind": TEXT,
    "source": TEXT,
    "data_sha256": TEXT,
    "head": TEXT,
    "items": WHOLE,
    "step": WHOLE,
    "metrics": (dict,),
    "errors": (dict,),
    "subsets": (dict,),
    "settings": (dict,),
}
EVALUATION_NEEDS = tuple(name for name in EVALUATION if name != "step")
ANALYSIS: Kinds = {"findings": (list,), "about": (dict,)}
FINDING: Kinds = {
    "name": TEXT,
    "scalars": (dict,),
    "arrays": (dict,),
    "claims": (list,),
    "answer": TEXT,
}


def read(path: Path, parse: Callable[[], Any], kinds: Kinds) -> dict[str, Any]:
    """What `parse` makes of a file, a mapping whose entries are of the expected kinds.

    Raises:
        HeadlessError: the file cannot be parsed, or holds something else.
    """
    try:
        values = parse()
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, str(error)) from error
    return checked(path, {} if values is None else values, kinds)


def checked(path: Path, values: Any, kinds: Kinds) -> dict[str, Any]:
    """`values`, if they are a mapping whose entries, or entries below entries, are as expected.

    Raises:
        HeadlessError: they are not.
    """
    if not isinstance(values, dict):
        raise damaged(path, f"it holds {_word(values)}, not names with values")
    if not all(isinstance(key, str) for key in values):
        raise damaged(path, "a name in it is not a text")
    flat = dict(flatten(values))
    for key, expected in kinds.items():
        value = flat.get(key) if "." in key else values.get(key)
        if value is not None and not _is(value, expected):
            words = " or ".join(WORDS[kind] for kind in expected)
            raise damaged(path, f"{key} is {_word(value)}, not {words}")
    return values


def _is(value: Any, expected: tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, expected):
        return False
    return is_number(value) or not isinstance(value, int | float)


def checked_all(path: Path, values: Any, kinds: Kinds, needs: Sequence[str]) -> list[Any]:
    """Each entry of a list `checked`, with what it must have.

    Raises:
        HeadlessError: one is not as expected.
    """
    for value in values:
        entry = checked(path, value, kinds)
        if missing := [name for name in needs if entry.get(name) is None]:
            raise damaged(path, f"{missing[0]} is missing")
    return list(values)


def damaged(path: Path, why: str) -> HeadlessError:
    """The complaint."""
    return HeadlessError(
        f"{path} is damaged ({' '.join(why.split())}): leave {path.parent} out, or move the file "
        "aside"
    )


def load_json(path: Path) -> Any:
    """A file's JSON; None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    bool: "true or false",
}


def _word(value: Any) -> str:
    return WORDS.get(type(value), type(value).__name__)
