"""Headless for most of the steps, then the softmax that the calibrated head already is.

Shapes: N rows, D hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from headless.objectives.base import LMHead, Objective, ObjectiveOutput, UniqueTargets
from headless.objectives.contrastive import ContrastiveWeightTying
from headless.objectives.cross_entropy import cross_entropy_loss


def switched(objective: Objective, at: float) -> "Switched":
    """`Switched` over any objective.

    Raises:
        ValueError: its head is not a softmax without training.
    """
    if not isinstance(objective, ContrastiveWeightTying) or objective.duplicates == "mask":
        raise ValueError(
            "switch_at needs an objective whose head is a softmax without training: "
            f"ContrastiveWeightTying, not with duplicates=mask; got {objective.describe()}"
        )
    return Switched(objective, at)


class Switched(Objective):
    """A contrastive objective until `switch` is called, cross-entropy under its head from then on.

    The softmax begins as the calibrated head: the same matrix, temperature and bias. All of them
    are trained on, the bias as a number a token that is added to the one it begins with.
    `at`, the share of the steps after which whoever trains calls `switch`, is for tables. (Were
    `contrastive` any Objective, a shell's completion would offer it within itself, without end.)
    """

    needs_unique = True

    def __init__(self, contrastive: ContrastiveWeightTying, at: float) -> None:
        super().__init__()
        if not 0.0 < at < 1.0:
            raise ValueError(f"switch_at must be between 0 and 1, got {at}")
        self.contrastive = contrastive
        self.at = at
        self.negatives = contrastive.negatives
        self.is_switched = False  # as the buffer, where a compiled step can see it
        self.register_buffer("switched", torch.zeros((), dtype=torch.bool))
        self.switched: Tensor
        self.register_load_state_dict_post_hook(_look_at_the_buffer)

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        self.contrastive.setup(vocab_size, hidden_size, initializer_range)
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))
        self.register_buffer("first_bias_V", torch.zeros(vocab_size))
        self.first_bias_V: Tensor

    def set_unigram(self, count_V: Tensor) -> None:
        self.contrastive.set_unigram(count_V)

    def switch(self, unigram_count_V: Tensor) -> None:
        """Go over to the softmax; the counts are the training text's."""
        first_V = self.contrastive.head_bias(unigram_count_V)
        if first_V is not None:
            self.first_bias_V.copy_(first_V)
        self.switched.fill_(True)
        self.is_switched = True

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        if not self.is_switched:
            output = self.contrastive(hidden_ND, targets_N, embedding_VD, unique)
            # The bias has a gradient of 0 until then: DDP waits for that of every parameter.
            return ObjectiveOutput(output.loss + 0.0 * self.bias_V.sum(), output.metrics)
        hidden_ND, table_VD = self.contrastive.scored(hidden_ND, embedding_VD)
        bias_V = self.first_bias_V + self.bias_V
        loss = cross_entropy_loss(hidden_ND, targets_N, table_VD, bias_V)
        return ObjectiveOutput(loss, self.contrastive.temperature_metrics())

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The calibrated head, and after the switch the one that is trained."""
        head = self.contrastive.lm_head(embedding_VD, unigram_count_V)
        if not self.is_switched:
            return head
        return head._replace(bias_V=self.first_bias_V + self.bias_V, is_calibrated=False)

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        if self.is_switched:
            return vocab_size
        return self.contrastive.num_candidates(vocab_size, num_unique, num_rows)

    def describe(self) -> str:
        return f"{self.contrastive.describe()}, softmax from {self.at:.0%} on"


def _look_at_the_buffer(objective: Switched, _: Any) -> None:
    objective.is_switched = bool(objective.switched)
