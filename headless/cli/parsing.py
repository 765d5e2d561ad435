"""A verb of the library as a command: its signature is the schema, its docstring the help."""

import inspect
from collections.abc import Callable
from typing import Any

from docstring_parser import parse

import headless
from headless.errors import HeadlessError
from headless.training.parsing import CommandParser
from headless.training.signatures import stub

SEEDS = ("seed", "seeds", "split_seed")  # whichever a command has: numpy takes 32 bits
OF_LIBRARY = {"progress", "say", "stream"}  # what a command decides for itself


def verb(name: str) -> Callable[..., Any]:
    """The signature and docstring of a verb, whose module is not imported for it."""
    return stub(headless.HOMES[name], name)


def parser_of(
    command: str, *sources: Callable[..., Any], positional: str = "", config: bool = True
) -> CommandParser:
    """The parser of a command.

    Args:
        sources: functions and dataclasses whose parameters the options are; the docstring of the
            first describes the command.
        positional: a parameter that is given without its name, as often as one likes.
        config: whether a file can hold the options.
    """
    help_text = parse(inspect.getdoc(sources[0]) or "")
    parser = CommandParser(
        prog=f"headless {command}", description=help_text.short_description, allow_abbrev=False
    )
    if config:
        parser.add_argument("--config", action="config", help="a YAML file with these options")
    if positional:
        descriptions = {param.arg_name: param.description for param in help_text.params}
        parser.add_argument(positional, nargs="*", type=str, help=descriptions[positional])
    for source in sources:
        skip: set[str | int] = set(
            (OF_LIBRARY | {positional}) & set(inspect.signature(source).parameters)
        )
        is_class = inspect.isclass(source)
        add = parser.add_class_arguments if is_class else parser.add_function_arguments
        add(source, as_group=False, skip=skip)
    return parser


def options_from(
    command: str, arguments: list[str], *sources: Callable[..., Any], positional: str = ""
) -> dict[str, Any]:
    """The options of a command by their names, from what follows it; see `parser_of`."""
    parser = parser_of(command, *sources, positional=positional)
    options: dict[str, Any] = parser.instantiate_classes(parser.parse_args(arguments)).as_dict()
    options.pop("config", None)
    for option in SEEDS:
        value = options.get(option)
        for seed in value if isinstance(value, list | tuple) else [value]:
            if isinstance(seed, int) and not 0 <= seed < 2**32:
                raise HeadlessError(f"{option} must be from 0 to 4294967295, got {seed}")
    return options
