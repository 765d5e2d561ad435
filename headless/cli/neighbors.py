"""`headless neighbors`: nearest tokens, likeliest next tokens, nearest contexts."""

import headless
from headless.cli.neighbors_display import show
from headless.cli.parsing import options_from
from headless.downstream.options import NeighborOptions


def main(arguments: list[str]) -> None:
    options = NeighborOptions(**options_from("neighbors", arguments))
    result = headless.neighbors(**vars(options), progress=True)
    show(result, options)
