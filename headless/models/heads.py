"""Modules made from an objective's LM head."""

from collections.abc import Callable

from torch import Tensor, nn


class OutputHead(nn.Module):
    """Hidden states [..., D] to logits [..., V].

    Args:
        logits: what does it, e.g. the `logits` of an objective's `LMHead`.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits: their softmax is the model's distribution."""
        return self.logits(hidden)
