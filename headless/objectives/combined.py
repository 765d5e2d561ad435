"""Cross-entropy and the contrastive objective together (the paper's ablation, Tab. 6)."""

import math

from torch import Tensor

from headless.objectives.base import LMHead, Objective, ObjectiveOutput, UniqueTargets
from headless.objectives.contrastive import ContrastiveWeightTying
from headless.objectives.cross_entropy import CrossEntropy


class Combined(Objective):
    """loss = cross-entropy + contrastive_weight · CWT, on the same hidden states.

    Args:
        cross_entropy: the part with a head; its head is the model's.
        contrastive: the headless part.
        contrastive_weight: 1 is the paper's unweighted sum.
    """

    needs_unique = True

    def __init__(
        self,
        cross_entropy: CrossEntropy | None = None,
        contrastive: ContrastiveWeightTying | None = None,
        contrastive_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= contrastive_weight < math.inf:
            raise ValueError(f"contrastive_weight must not be negative, got {contrastive_weight}")
        self.cross_entropy = cross_entropy or CrossEntropy()
        self.contrastive = contrastive or ContrastiveWeightTying()
        self.contrastive_weight = contrastive_weight
        self.negatives = self.contrastive.negatives

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        self.cross_entropy.setup(vocab_size, hidden_size, initializer_range)
        self.contrastive.setup(vocab_size, hidden_size, initializer_range)

    def set_unigram(self, count_V: Tensor) -> None:
        self.cross_entropy.set_unigram(count_V)
        self.contrastive.set_unigram(count_V)

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        ce = self.cross_entropy(hidden_ND, targets_N, embedding_VD, unique)
        cwt = self.contrastive(hidden_ND, targets_N, embedding_VD, unique)
        return ObjectiveOutput(
            ce.loss + self.contrastive_weight * cwt.loss,
            {"loss_cross_entropy": ce.loss.detach(), "loss_contrastive": cwt.loss.detach()},
        )

    def after_step(self, embedding_VD: Tensor) -> None:
        self.cross_entropy.after_step(embedding_VD)

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The cross-entropy part's: the one that is trained to be a distribution."""
        return self.cross_entropy.lm_head(embedding_VD, unigram_count_V)

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        sizes = (vocab_size, num_unique, num_rows)
        return self.cross_entropy.num_candidates(*sizes) + self.contrastive.num_candidates(*sizes)

    def describe(self) -> str:
        weight = f"{self.contrastive_weight:g}·" if self.contrastive_weight != 1.0 else ""
        return f"{self.cross_entropy.describe()} + {weight}{self.contrastive.describe()}"
