"""Looking at a model in the middle of its training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from headless.models.sharding import gathered

PROBE_TOKENS = 8


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


def require_finite(module: Any) -> None:
    """Before anybody looks at the weights: refuse where training has diverged.

    The losses of all steps, and what the weights of now give, which no loss has seen yet: every
    process must call, and each one raises.
    """
    module.require_finite()
    length = min(PROBE_TOKENS, module.sequence_length)
    ids_1T = torch.arange(length, device=module.device)[None] % module.vocab_size
    with evaluating(module), module.trainer.precision_plugin.forward_context():
        finite = module.forward(ids_1T).isfinite().all()
    if not finite:
        raise module.diverged()
