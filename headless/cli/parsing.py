"""A verb of the library as a command: its signature is the schema, its docstring the help."""

import inspect
from collections.abc import Callable
from typing import Any

from docstring_parser import parse

import headless
from headless.downstream.options import FinetuneOptions, Recipe, Source
from headless.errors import HeadlessError
from headless.sweeps.config import SweepConfig
from headless.training.options import stub
from headless.training.parsing import CommandParser

# Whose options are the fields of these; those of the others are a verb's own parameters.
DATACLASSES: dict[str, tuple[Callable[..., Any], ...]] = {
    "finetune": (FinetuneOptions, Source, Recipe),
    "sweep": (SweepConfig,),
}
POSITIONAL = {"compare": "runs"}  # given without its name, as often as one likes
SEEDS = ("seed", "seeds", "split_seed")  # whichever a command has: numpy takes 32 bits
OF_LIBRARY = {"progress", "say", "stream"}  # what a command decides for itself


def parser_of(command: str) -> CommandParser:
    """The parser of a command; the docstring of its first source describes it."""
    sources = DATACLASSES.get(command) or (stub(headless.HOMES[command], command),)
    help_text = parse(inspect.getdoc(sources[0]) or "")
    parser = CommandParser(prog=f"headless {command}", description=help_text.short_description)
    parser.add_argument("--config", action="config", help="a YAML file with these options")
    positional = POSITIONAL.get(command, "")
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


def options_from(command: str, arguments: list[str]) -> dict[str, Any]:
    """The options of a command by their names, from what follows it."""
    parser = parser_of(command)
    options: dict[str, Any] = parser.instantiate_classes(parser.parse_args(arguments)).as_dict()
    options.pop("config", None)
    for option in SEEDS:
        value = options.get(option)
        for seed in value if isinstance(value, list | tuple) else [value]:
            if isinstance(seed, int) and not 0 <= seed < 2**32:
                raise HeadlessError(f"{option} must be from 0 to 4294967295, got {seed}")
    return options
