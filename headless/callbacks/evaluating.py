"""Looking at a model in the middle of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from headless.models.sharding import gathered


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No dropout, so no random number, and no gradients; every submodule gets its own mode back.

    Where the weights are sharded, those outside the blocks are whole: every process must enter.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), gathered(module):
            yield
    finally:
        for part, training in modes.items():
            part.training = training
