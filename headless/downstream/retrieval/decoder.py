"""Decoding by maximum-inner-product search in place of the vocabulary projection.

A linear head's logit of token v is w_v·h + b_v = [w_v ; b_v]·[h ; 1]: the k likeliest tokens are
the k rows of the table [W ; b] with the largest inner product.

Shapes: B queries, D hidden size, V vocabulary, k likeliest tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import Kind, VectorIndex
from headless.errors import HeadlessError

PROBE_TOKENS = 8  # of the sequence on which a head is shown to be linear
TOLERANCE, HALF_TOLERANCE = 1e-4, 3e-2  # relative to the largest logit; in bfloat16 and float16


class FaissHead(nn.Module):
    """`nn.Linear(D, V)` as an index, in float32: logits of the k likeliest tokens only."""

    def __init__(self, linear: nn.Module, kind: Kind = "exact", k: int = 64) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise HeadlessError(
                f"the head is a {type(linear).__name__}, not a matrix: use the model's own decoder"
            )
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        self.weight, self.bias = linear.weight, linear.bias
        table = linear.weight.detach().float()
        if linear.bias is not None:
            table = torch.cat([table, linear.bias.detach().float()[:, None]], dim=1)
        self.index = VectorIndex(table.cpu().numpy(), kind, "inner")
        self.k = min(k, len(table))

    def search(self, hidden_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (float32, largest first) and ids (long) of the likeliest tokens, [B, k].

        -inf and -1 where an approximate search has fewer. Both are on the device of `hidden_BD`.
        """
        queries = hidden_BD.detach().float().cpu().numpy()
        if self.bias is not None:
            queries = np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)
        scores_Bk, ids_Bk = self.index.search(queries, self.k)
        device = hidden_BD.device
        return torch.from_numpy(scores_Bk).to(device), torch.from_numpy(ids_Bk).to(device)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]: -inf for all but the likeliest tokens."""
        scores_Bk, ids_Bk = self.search(hidden.flatten(0, -2))
        if bool((ids_Bk[:, 0] < 0).any()):
            raise HeadlessError(f"the {self.index.kind} index found no token: take exact")
        logits_BV = scores_Bk.new_full((len(scores_Bk), len(self.weight) + 1), -torch.inf)
        logits_BV.scatter_(1, ids_Bk.where(ids_Bk >= 0, len(self.weight)), scores_Bk)
        return logits_BV[:, :-1].unflatten(0, hidden.shape[:-1])


@contextmanager
def index_as_head(lm: LanguageModel, kind: Kind = "exact", k: int = 64) -> Iterator[FaissHead]:
    """For a while, `lm.generate` finds the likeliest tokens in an index, and draws among k."""
    check_linear(lm)
    linear: Any = lm.model.get_output_embeddings()
    head = FaissHead(linear, kind, k)
    lm.model.set_output_embeddings(head)
    try:
        yield head
    finally:
        lm.model.set_output_embeddings(linear)


def check_linear(lm: LanguageModel) -> None:
    """Refuse a model whose logits are not its output matrix (and bias) times its hidden states."""
    if lm.task != "causal":
        raise HeadlessError(f"{lm.name} is a masked model, which continues no prompt")
    if not is_linear(lm):
        raise HeadlessError(
            f"the head of {lm.name} is more than a matrix and a bias, which is all that an index "
            "can search: use the model's own decoder"
        )


@torch.no_grad()
def is_linear(lm: LanguageModel) -> bool:
    """Whether logits are the output matrix (and bias) times the hidden states, of a sequence."""
    model: Any = lm.model
    ids_1T = (torch.arange(PROBE_TOKENS) * 7919 % model.config.vocab_size)[None]
    linear = model.get_output_embeddings()
    if isinstance(linear, nn.Linear):
        hidden, logits = lm.last_states(ids_1T)
        assert logits is not None
        bias = None if linear.bias is None else linear.bias.to(hidden.dtype)
        products = F.linear(hidden, linear.weight.to(hidden.dtype), bias).float()
        half = hidden.dtype in (torch.bfloat16, torch.float16)
        limit = (HALF_TOLERANCE if half else TOLERANCE) * logits.float().abs().max()
        return bool((products - logits.float()).abs().max() <= limit)
    return False
