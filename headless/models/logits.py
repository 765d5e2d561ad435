"""The logits of some positions alone: nothing needs those of all tokens at a time.

Shapes: B rows, T positions, D hidden size, V vocabulary; M chosen positions.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LOGITS = 2**28  # that exist at a time: 1 GiB in float32


def rows_at_a_time(vocab_size: int) -> int:
    """Of how many rows the logits may exist at a time."""
    return max(1, LOGITS // vocab_size)


class ChosenLogits(nn.Module):
    """An output layer that is applied, in float32 at least, to some positions of a batch only.

    In bf16 several tokens would share the largest logit.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        low = any(p.itemsize < 4 for p in layer.parameters())
        self.layer = copy.deepcopy(layer).float() if low else layer
        self.row_M = self.position_M = torch.tensor([0])

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Logits [1, M, V]."""
        hidden_MD = hidden_BTD[self.row_M, self.position_M]
        wide = torch.promote_types(hidden_MD.dtype, torch.float32)
        return self.layer(hidden_MD[None].to(wide))


@contextmanager
def chosen_logits(model: Any) -> Iterator[ChosenLogits]:
    """Inside, the model's logits, which it may cap or scale, are those of chosen positions."""
    layer: Any = model.get_output_embeddings()
    path = next(name for name, module in model.named_modules() if module is layer)
    parent, _, name = path.rpartition(".")
    head = ChosenLogits(layer)
    setattr(model.get_submodule(parent), name, head)
    try:
        yield head
    finally:
        setattr(model.get_submodule(parent), name, layer)


def logits_at(model: Any, ids_BT: Tensor, chosen_BT: Tensor, **options: Any) -> Tensor:
    """Logits [M, V] of the positions that a mask chooses, in their order."""
    with torch.autocast(ids_BT.device.type, enabled=False), chosen_logits(model) as head:
        head.row_M, head.position_M = chosen_BT.nonzero(as_tuple=True)
        return model(input_ids=ids_BT, **options).logits[0]
