"""`headless --print_completion SHELL`: a script that completes every command and its options."""

from collections.abc import Mapping
from typing import Any, NoReturn

from headless.cli.parsing import parser_of
from headless.errors import HeadlessError
from headless.training.assembly import RunCLI
from headless.training.options import stub
from headless.training.parsing import CommandParser


class _Made(Exception):  # noqa: N818 - not an error: the parser is there
    def __init__(self, parser: CommandParser) -> None:
        self.parser = parser


class _Unparsed(RunCLI):
    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        raise _Made(parser)


def run_parser(command: str) -> CommandParser:
    """The parser of a command that takes the settings of a run."""
    try:
        _Unparsed([], f"headless {command}")
    except _Made as made:
        return made.parser
    raise AssertionError


def whole_parser(commands: Mapping[str, str]) -> CommandParser:
    """All commands as the subcommands of one parser, which parses nothing."""
    whole = CommandParser(prog="headless")
    whole.add_argument("--version", action="store_true")
    subcommands = whole.add_subcommands(required=False)
    for name, description in commands.items():
        parser = run_parser(name) if name in ("pretrain", "validate") else parser_of(name)
        if name == "finetune":  # --task lm-head
            more = stub("headless.training.tune_head", "tuning_config")
            known: set[str | int] = set(parser.known_keys())
            parser.add_function_arguments(more, as_group=False, skip=known)
        subcommands.add_subcommand(name, parser, help=description)
    return whole


def main(arguments: list[str], commands: Mapping[str, str]) -> None:
    shell = arguments[0] if arguments else "shtab-bash"
    try:
        print(whole_parser(commands).get_completion_script(shell))
    except ValueError as error:
        raise HeadlessError(
            f"{error} Take shtab-bash, shtab-zsh or shtab-tcsh, with the extra `completion`"
        ) from error
