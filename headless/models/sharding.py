"""Fully sharded weights (FSDP2): each process keeps its share of every parameter.

A block of the backbone is whole only while it computes. All parameters that are in no block (the
embedding table, the last norm, the objective's own) form the root's share, which is whole from the
beginning of a step to the end of its backward pass: the objective scores against the embedding
table after the backbone is done with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from headless.errors import HeadlessError
from headless.models.backbone import blocks

STEPS = ("training_step", "validation_step")


def shard(module: nn.Module, backbone: nn.Module, mesh: Any) -> None:
    """Leave on each process of a mesh its share of a module's parameters, in place.

    `training_step` and `validation_step` become the calls around which the root's share is whole.

    `backbone` is a part of `module`, which is the same on every process of the mesh (of one
    dimension).
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    scalars = [name for name, p in module.named_parameters() if p.ndim == 0]
    if scalars:
        raise HeadlessError(
            f"{', '.join(scalars)} is a single number, which cannot be sharded: "
            "choose trainer.strategy ddp"
        )
    for block in blocks(backbone):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    module.begin = lambda: None  # type: ignore[assignment] # a forward pass without any work
    for name in (*STEPS, "begin"):
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def is_sharded(module: nn.Module) -> bool:
    return hasattr(module, "unshard")


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, the root's share is whole and the backbone may be called; without gradients.

    Every process must enter. A module that is not sharded is left as it is.
    """
    if not is_sharded(module):
        yield
        return
    sharded: Any = module
    with torch.no_grad():
        sharded.begin()  # a root must be the first to compute
        sharded.unshard()
        try:
            yield
        finally:
            sharded.reshard()
