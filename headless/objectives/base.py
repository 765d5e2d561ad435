"""What every objective is: rows and labels in, a scalar loss out, and the LM head that it implies.

Shapes: N rows (positions of the batch, flattened), D hidden size, V vocabulary, M unique targets.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

IGNORE_INDEX = -100


class UniqueTargets(NamedTuple):
    """The distinct targets of a batch, so that a loss scores M candidates instead of N.

    May be padded to a static M: padding entries have count 0 and any valid id.
    """

    ids_M: Tensor  # long, ids of the vocabulary
    inverse_N: Tensor  # long, position in `ids_M` of each row's target, -100 where it is ignored
    count_M: Tensor  # how often each id is a target in the batch; 0 marks padding


class ObjectiveOutput(NamedTuple):
    """A differentiable scalar and what else is worth a curve (detached scalars)."""

    loss: Tensor
    metrics: dict[str, Tensor]


class LMHead(NamedTuple):
    """How an objective's model turns hidden states into logits: hidden · weightᵀ + bias."""

    weight_VD: Tensor
    bias_V: Tensor | None


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 and fp16 logits in float32, others as they are: a softmax needs the mantissa."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def log_unigram(count_V: Tensor) -> Tensor:
    """The log of the unigram distribution of `count_V` [V], float32.

    One is added to each count (Laplace), so that a token that the training text never holds has
    a small probability and not log 0.
    """
    smoothed_V = count_V.double() + 1.0
    return (smoothed_V / smoothed_V.sum()).log().float()


class Objective(nn.Module):
    """Base of all objectives. A subclass is one file, one import line and one test.

    Class attributes:
        needs_unique: whether `forward` uses the table of unique targets.
    """

    needs_unique: bool = False

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        """Make the parameters whose shapes only the backbone knows. Most objectives have none."""

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        """Score rows.

        Args:
            hidden_ND: output vectors of the backbone.
            targets_N: long; -100 marks rows that do not count.
            embedding_VD: the backbone's input embedding table.
            unique: the table that the collator made; made here when it is None.

        Returns:
            The mean loss in nats over the rows that count, 0 when none does.
        """
        raise NotImplementedError

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The head under which this objective's model is a proper language model.

        Args:
            embedding_VD: the backbone's input embedding table.
            unigram_count_V: how often each token occurs in the training text.
        """
        raise NotImplementedError

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        """How many vectors each row is scored against: the D-long dot products of the loss."""
        raise NotImplementedError

    def describe(self) -> str:
        """A few words for tables."""
        raise NotImplementedError


def mean_over_valid(total: Tensor, targets_N: Tensor) -> Tensor:
    """`total` divided by the number of rows that count; 0 (and finite gradients) when none does."""
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)
