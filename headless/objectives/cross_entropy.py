"""The standard language-modelling objective: cross-entropy over the whole vocabulary.

Shapes: N rows, D hidden size, V vocabulary, C rows of a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headless.objectives.base import (
    IGNORE_INDEX,
    LMHead,
    Objective,
    ObjectiveOutput,
    UniqueTargets,
    at_least_float32,
    mean_over_valid,
)


def _sums(
    hidden_CD: Tensor, targets_C: Tensor, weight_VD: Tensor, label_smoothing: float, with_z: bool
) -> tuple[Tensor, Tensor]:
    """Summed negative log-likelihood and summed squared log-partition of the rows that count."""
    logits_CV = at_least_float32(hidden_CD @ weight_VD.T)
    nll = F.cross_entropy(
        logits_CV,
        targets_C,
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    if not with_z:
        return nll, nll.new_zeros(())
    log_z_C = logits_CV.logsumexp(dim=-1)
    return nll, log_z_C.square().where(targets_C != IGNORE_INDEX, 0.0).sum()


def cross_entropy_loss(
    hidden_ND: Tensor,
    targets_N: Tensor,
    weight_VD: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk_size: int | None = None,
) -> Tensor:
    """Mean cross-entropy of `hidden · weightᵀ` against the targets, in nats.

    Args:
        hidden_ND: output vectors.
        targets_N: long; rows with -100 do not count.
        weight_VD: one vector a token of the vocabulary.
        label_smoothing: mass spread over the vocabulary.
        z_loss: weight of the mean squared log-partition (PaLM, §5), against drifting logits.
        chunk_size: rows whose logits exist at a time; the others are computed again in the
            backward pass. None holds all N x V logits: faster, more memory.

    Returns:
        A scalar; 0 with finite gradients when no row counts.
    """
    arguments = (weight_VD, label_smoothing, z_loss != 0.0)
    if chunk_size is None:
        nll, z = _sums(hidden_ND, targets_N, *arguments)
    else:
        parts = [
            checkpoint(_sums, hidden_CD, targets_C, *arguments, use_reentrant=False)
            for hidden_CD, targets_C in zip(
                hidden_ND.split(chunk_size), targets_N.split(chunk_size), strict=True
            )
        ]
        nll, z = (torch.stack(sums).sum() for sums in zip(*parts, strict=True))
    return mean_over_valid(nll + z_loss * z, targets_N)


class CrossEntropy(Objective):
    """The standard LM head: every row is scored against the whole vocabulary.

    Args:
        tied: score against the input embeddings instead of a matrix of the head's own.
        z_loss: weight of the mean squared log-partition (PaLM, §5).
        label_smoothing: mass spread over the vocabulary.
        chunk_size: rows whose logits exist at a time; None: all of them.
    """

    def __init__(
        self,
        tied: bool = False,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if z_loss < 0.0:
            raise ValueError(f"z_loss must not be negative, got {z_loss}")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        self.tied = tied
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_size = chunk_size
        self.weight_VD: nn.Parameter | None = None

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        """An untied head is a matrix of its own, initialised as the family does its embeddings."""
        if not self.tied:
            self.weight_VD = nn.Parameter(torch.empty(vocab_size, hidden_size))
            nn.init.normal_(self.weight_VD, std=initializer_range)

    def _weight(self, embedding_VD: Tensor) -> Tensor:
        if self.tied:
            return embedding_VD
        if self.weight_VD is None:
            raise RuntimeError("CrossEntropy(tied=False) has no head before setup() was called")
        return self.weight_VD

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        """See `Objective.forward`."""
        loss = cross_entropy_loss(
            hidden_ND,
            targets_N,
            self._weight(embedding_VD),
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            chunk_size=self.chunk_size,
        )
        return ObjectiveOutput(loss, {})

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The matrix that it was trained with."""
        return LMHead(self._weight(embedding_VD), None)

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        """The whole vocabulary."""
        return vocab_size

    def describe(self) -> str:
        """A few words for tables."""
        return f"cross-entropy ({'tied' if self.tied else 'untied'})"
