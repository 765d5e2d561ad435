"""Modules made from the plain tensors of an objective's LM head."""

import torch.nn.functional as F
from torch import Tensor, nn


class OutputHead(nn.Module):
    """logits [..., V] = hidden [..., D] · weightᵀ + bias.

    Args:
        weight_VD: one output vector a token.
        bias_V: a number a token, or None.
    """

    def __init__(self, weight_VD: Tensor, bias_V: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight_VD.detach())
        self.register_buffer("bias", None if bias_V is None else bias_V.detach())
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits in the dtype of the weight."""
        return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
