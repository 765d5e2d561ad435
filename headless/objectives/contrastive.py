"""The headless objective: Contrastive Weight Tying (Godey et al., ICLR 2024, §3.2).

Each output vector must pick the input embedding of its target among the embeddings of all targets
of the batch. There is no projection onto the vocabulary.

Shapes: N rows, D hidden size, V vocabulary, M unique targets of the batch.

The paper scores N x N. A target that occurs c times stands c times in every row's denominator, so

    loss_i = log sum_m c_m exp(h_i·e_m / T) - h_i·e_u(i) / T
           = cross_entropy(h_i·e_m / T + log c_m, u(i)) + log c_u(i)

over the M unique targets: equal in value and in both gradients, at N·M·D instead of N²·D.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from headless.objectives.base import (
    IGNORE_INDEX,
    LMHead,
    Objective,
    ObjectiveOutput,
    UniqueTargets,
    at_least_float32,
    log_unigram,
    mean_over_valid,
)

Implementation = Literal["deduplicated", "reference"]
Duplicates = Literal["count"]


def unique_targets(targets_N: Tensor) -> UniqueTargets:
    """The unique targets of a batch, unpadded: ids ascending, rows with -100 left out.

    The collator makes the same table on the CPU; this is for callers that have none. A batch
    without any row that counts gets one entry, so that a softmax over it is defined.
    """
    valid_N = targets_N != IGNORE_INDEX
    ids_M, inverse, count_M = targets_N[valid_N].unique(return_inverse=True, return_counts=True)
    if ids_M.numel() == 0:
        ids_M, count_M = targets_N.new_zeros(1), targets_N.new_ones(1)
    return UniqueTargets(
        ids_M, torch.full_like(targets_N, IGNORE_INDEX).masked_scatter(valid_N, inverse), count_M
    )


def _deduplicated(
    hidden_ND: Tensor, targets_N: Tensor, embedding_VD: Tensor, unique: UniqueTargets
) -> Tensor:
    logits_NM = at_least_float32(hidden_ND @ embedding_VD[unique.ids_M].T)
    log_count_M = unique.count_M.to(logits_NM.dtype).log()  # -inf for padding: no candidate
    nll = F.cross_entropy(
        logits_NM + log_count_M, unique.inverse_N, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    # No gradient, but with it the number is the paper's. Once per unique target, not per row:
    # its c copies each add log c.
    constant = torch.special.xlogy(unique.count_M, unique.count_M.to(logits_NM.dtype)).sum()
    return mean_over_valid(nll + constant, targets_N)


def _reference(hidden_ND: Tensor, targets_N: Tensor, embedding_VD: Tensor) -> Tensor:
    """The paper's N x N form (Fig. 9), with a log-sum-exp that cannot overflow."""
    valid_N = targets_N != IGNORE_INDEX
    scores_NN = at_least_float32(hidden_ND @ embedding_VD[targets_N.clamp(min=0)].T)
    candidates_N = valid_N | ~valid_N.any()  # a softmax over nothing would be NaN
    scores_NN = scores_NN.masked_fill(~candidates_N, -torch.inf)
    own_N = torch.arange(len(targets_N), device=targets_N.device).where(valid_N, IGNORE_INDEX)
    nll = F.cross_entropy(scores_NN, own_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return mean_over_valid(nll, targets_N)


def contrastive_weight_tying_loss(
    hidden_ND: Tensor,
    targets_N: Tensor,
    embedding_VD: Tensor,
    *,
    temperature: float = 1.0,
    duplicates: Duplicates = "count",
    implementation: Implementation = "deduplicated",
    unique: UniqueTargets | None = None,
) -> Tensor:
    """Mean contrastive loss of output vectors against the batch's target embeddings, in nats.

    Args:
        hidden_ND: output vectors.
        targets_N: long; rows with -100 neither count nor serve as negatives.
        embedding_VD: the input embedding table. Gradients reach it, as in the paper.
        temperature: dot products are divided by it; the paper's is 1.
        duplicates: "count" keeps every copy of a target in the denominator (the paper).
        implementation: "deduplicated" scores the unique targets; "reference" is the paper's
            N x N form, equal in value and gradients, for tests and benchmarks.
        unique: the table of unique targets; made here when it is None.

    Returns:
        A scalar; 0 with finite gradients when no row counts.

    Raises:
        ValueError: an unknown form or a temperature that is not positive.
    """
    _check_form(temperature, duplicates, implementation)
    hidden_ND = hidden_ND / temperature  # N·D divisions instead of N·M
    if implementation == "reference":
        return _reference(hidden_ND, targets_N, embedding_VD)
    if unique is None:
        unique = unique_targets(targets_N)
    return _deduplicated(hidden_ND, targets_N, embedding_VD, unique)


def _check_form(temperature: float, duplicates: str, implementation: str) -> None:
    if temperature <= 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    for name, value, known in (
        ("duplicates", duplicates, get_args(Duplicates)),
        ("implementation", implementation, get_args(Implementation)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


class ContrastiveWeightTying(Objective):
    """The headless objective: pick the target's input embedding among the batch's targets.

    At its optimum h·e_v / T = log p(v|context) - log p(v) + const: negatives come from the
    unigram distribution, so what is learned is pointwise mutual information. Adding log p(v)
    back makes the model a language model without a training step: the calibrated head.

    Args:
        temperature: dot products are divided by it.
        duplicates: "count" keeps every copy of a target in the denominator (the paper).
        implementation: "deduplicated", or the paper's N x N form "reference".
    """

    needs_unique = True

    def __init__(
        self,
        temperature: float = 1.0,
        duplicates: Duplicates = "count",
        implementation: Implementation = "deduplicated",
    ) -> None:
        super().__init__()
        _check_form(temperature, duplicates, implementation)
        self.temperature = temperature
        self.duplicates = duplicates
        self.implementation = implementation

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        """See `Objective.forward`."""
        loss = contrastive_weight_tying_loss(
            hidden_ND,
            targets_N,
            embedding_VD,
            temperature=self.temperature,
            duplicates=self.duplicates,
            implementation=self.implementation,
            unique=unique,
        )
        return ObjectiveOutput(loss, {})

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The calibrated head: logits = h·Eᵀ/T + log p(v)."""
        return LMHead(embedding_VD / self.temperature, log_unigram(unigram_count_V))

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        """The unique targets of the batch; every row's target in the paper's form."""
        return num_rows if self.implementation == "reference" else num_unique

    def describe(self) -> str:
        """A few words for tables."""
        temperature = f", T={self.temperature:g}" if self.temperature != 1.0 else ""
        return f"headless (CWT{temperature})"
