"""A verb of the library as a command: its signature is the schema, its docstring the help."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from docstring_parser import parse
from jsonargparse import set_parsing_settings

import headless
from headless.errors import HeadlessError
from headless.training.parsing import CommandParser
from headless.training.signatures import stub

SEEDS = ("seed", "seeds", "split_seed")  # whichever a command has: numpy takes 32 bits
OF_LIBRARY = {"progress"}  # what a command decides for itself


def parser_of(
    command: str, module: str = "", name: str = "", *, positional: str = "", config: bool = True
) -> CommandParser:
    """The parser of a verb, whose module is not imported for it.

    Args:
        command: its name, which is the verb's where no other is given.
        module: of the verb.
        name: of the verb.
        positional: a parameter that is given without its name, as often as one likes.
        config: whether a file can hold the options.
    """
    function = stub(module or headless.HOMES[command], name or command)
    help_text = parse(inspect.getdoc(function) or "")
    set_parsing_settings(add_print_completion_argument=True)
    parser = CommandParser(
        prog=f"headless {command}", description=help_text.short_description, allow_abbrev=False
    )
    if config:
        parser.add_argument("--config", action="config", help="a YAML file with these options")
    if positional:
        words = {p.arg_name: p.description for p in help_text.params}
        parser.add_argument(positional, nargs="*", type=str, help=words.get(positional))
    skip = OF_LIBRARY & set(inspect.signature(function).parameters) | {positional} - {""}
    parser.add_function_arguments(function, as_group=False, skip=skip)
    return parser


def options_of(command: str, arguments: list[str], **options: Any) -> dict[str, Any]:
    """The options of a verb from the words of a command line.

    Raises:
        HeadlessError: an unknown key or a value of the wrong type.
    """
    parser = parser_of(command, **options)
    values = parser.instantiate_classes(parser.parse_args(arguments)).as_dict()
    values.pop("config", None)
    check_seeds(values)
    return values


def check_seeds(values: Mapping[str, Any]) -> None:
    """Refuse seeds that numpy does not take."""
    for option in SEEDS:
        value = values.get(option)
        for seed in value if isinstance(value, list) else [value]:
            if isinstance(seed, int) and not 0 <= seed < 2**32:
                raise HeadlessError(f"{option} must be from 0 to 4294967295, got {seed}")


def options_from(
    command: str, arguments: list[str], *sources: Callable[..., Any]
) -> dict[str, Any]:
    """The options of a command by their names.

    Args:
        command: its name.
        arguments: the words of a command line.
        sources: functions and dataclasses whose parameters the options are; the docstring of the
            first describes the command.
    """
    parser = CommandParser(
        prog=f"headless {command}",
        description=parse(inspect.getdoc(sources[0]) or "").short_description,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with these options")
    for source in sources:
        if inspect.isclass(source):
            parser.add_class_arguments(source, as_group=False)
        else:
            parser.add_function_arguments(source, as_group=False)
    options: dict[str, Any] = parser.instantiate_classes(parser.parse_args(arguments)).as_dict()
    options.pop("config", None)
    check_seeds(options)
    return options


def run(function: Callable[..., Any], arguments: list[str], name: str) -> Any:
    """Parse `arguments` by the signature of `function` and call it."""
    return function(**options_from(name, arguments, function))
