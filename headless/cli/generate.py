"""`headless generate`: continue prompts, streaming to the terminal."""

import headless
from headless.cli.parsing import options_from


def main(arguments: list[str]) -> None:
    options = options_from("generate", arguments)
    headless.generate(**options, stream=True)
