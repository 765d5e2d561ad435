"""`headless neighbors`: nearest tokens, likeliest next tokens, nearest contexts."""

import headless
from headless.cli.neighbors_display import show
from headless.cli.parsing import options_from
from headless.downstream.options import NeighborOptions
from headless.progress import Display


def main(arguments: list[str]) -> None:
    """The command."""
    options = NeighborOptions(**options_from("neighbors", arguments, NeighborOptions))
    with Display() as display:
        result = headless.neighbors(**vars(options), progress=display.report)
    show(result, options)
