"""`headless generate`: continue prompts, streaming to the terminal."""

import headless
from headless.cli.parsing import options_from, verb


def main(arguments: list[str]) -> None:
    options = options_from("generate", arguments, verb("generate"))
    headless.generate(**options, stream=True)
