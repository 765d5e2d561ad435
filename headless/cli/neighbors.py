"""`headless neighbors`: nearest tokens, likeliest next tokens, nearest contexts."""

import headless
from headless.cli.neighbors_display import show
from headless.cli.parsing import options_from


def main(arguments: list[str]) -> None:
    options = options_from("neighbors", arguments)  # before what takes seconds to import
    result = headless.neighbors(**options, progress=True)
    show(result, options["store"])
