"""The headless objective: Contrastive Weight Tying (Godey et al., ICLR 2024, §3.2).

Each output vector must pick the input embedding of its target among the embeddings of all targets
of the batch. There is no projection onto the vocabulary.

Shapes: N rows, D hidden size, V vocabulary, M unique targets of the batch, K sampled negatives.

The paper scores N x N. Over the M unique targets with counts c the same loss, with the same
gradients, is cross_entropy(h·e_m / T + log c_m, u) + log c_u (docs/theory.md, 1). The other forms
change the weights c alone (headless/objectives/candidates.py).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from headless.objectives.base import (
    FOLD,
    IGNORE_INDEX,
    LMHead,
    Negatives,
    Objective,
    ObjectiveOutput,
    UniqueTargets,
    at_least_float32,
    check_choice,
    check_positive,
    divided_by,
    log_unigram,
    mean_over_valid,
)
from headless.objectives.candidates import (
    Duplicates,
    candidates,
    expected_log_weights,
    own_excess,
    unique_targets,
)
from headless.objectives.fused import fused_loss, has_kernels_for

Implementation = Literal["deduplicated", "fused", "reference"]


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1; a softmax over cosines needs the mantissa, so at least float32 inside."""
    return F.normalize(at_least_float32(x), dim=-1).to(x.dtype)


def _reference(hidden_ND: Tensor, targets_N: Tensor, output_VD: Tensor) -> Tensor:
    """The paper's N x N form (Fig. 9), with a log-sum-exp that cannot overflow."""
    valid_N = targets_N != IGNORE_INDEX
    scores_NN = at_least_float32(hidden_ND @ output_VD[targets_N.clamp(min=0)].T)
    candidates_N = valid_N | ~valid_N.any()  # a softmax over nothing would be NaN
    scores_NN = scores_NN.masked_fill(~candidates_N, -torch.inf)
    own_N = torch.arange(len(targets_N), device=targets_N.device).where(valid_N, IGNORE_INDEX)
    nll = F.cross_entropy(scores_NN, own_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return mean_over_valid(nll, targets_N)


def _deduplicated(
    hidden_ND: Tensor,
    targets_N: Tensor,
    output_VD: Tensor,
    unique: UniqueTargets,
    duplicates: Duplicates,
    num_sampled: int,
    log_unigram_V: Tensor | None,
    fused: bool,
) -> Tensor:
    own_N = unique.inverse_N
    dtype = at_least_float32(hidden_ND[:0]).dtype
    ids_M, weight_M = unique.ids_M, unique.log_weight_M
    if weight_M is None:
        ids_M, weight_M = candidates(unique, duplicates, num_sampled, log_unigram_V, dtype)
    places_M = ids_M if unique.places_M is None else unique.places_M
    rows_MD = output_VD[places_M]
    own_unweighted = duplicates in ("mask", "logq")  # it stands there once, for certain
    if fused:
        nll = fused_loss(hidden_ND, rows_MD, own_N, weight_M, own_unweighted)
        return mean_over_valid(nll, targets_N)
    scores_NM = at_least_float32(hidden_ND @ rows_MD.T)
    if own_unweighted:
        is_own_NM = torch.arange(len(ids_M), device=own_N.device) == own_N[:, None]
        logits_NM = torch.where(is_own_NM, scores_NM, scores_NM + weight_M)
    else:
        logits_NM = scores_NM.add_(weight_M)  # in place: nobody else needs a product's result
    nll = F.cross_entropy(logits_NM, own_N, ignore_index=IGNORE_INDEX, reduction="sum")
    if duplicates == "count":
        # No gradient, but with it the number is the paper's: the target itself has no log c.
        valid_N = own_N != IGNORE_INDEX
        nll = nll + weight_M[own_N.clamp(min=0)].where(valid_N, 0.0).sum()
    return mean_over_valid(nll, targets_N)


def contrastive_weight_tying_loss(
    hidden_ND: Tensor,
    targets_N: Tensor,
    embedding_VD: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    duplicates: Duplicates = "count",
    num_sampled: int = 0,
    log_unigram_V: Tensor | None = None,
    normalize: bool = False,
    stop_gradient: bool = False,
    implementation: Implementation = "deduplicated",
    unique: UniqueTargets | None = None,
) -> Tensor:
    """Mean contrastive loss of output vectors against the batch's target embeddings, in nats.

    Args:
        hidden_ND: output vectors.
        targets_N: long; rows with -100 neither count nor serve as negatives.
        embedding_VD: the vectors that are scored: the input embedding table, to which gradients
            flow as in the paper, or any other table of that shape.
        temperature: as for `ContrastiveWeightTying`, like the others that are not named here.
        log_unigram_V: log of the unigram distribution; "logq" and sampling need it.
        unique: the table of unique targets; made here when it is None. It may come from more rows
            than these: negatives of other micro-batches and devices.

    Returns:
        A scalar; 0 with finite gradients when no row counts.
    """
    _check_form(temperature, duplicates, num_sampled, implementation)
    if log_unigram_V is None and _needs_unigram(duplicates, num_sampled):
        raise ValueError("duplicates='logq' and num_sampled need log_unigram_V")
    if stop_gradient:
        embedding_VD = embedding_VD.detach()
    if normalize:
        hidden_ND, embedding_VD = _unit(hidden_ND), _unit(embedding_VD)
    hidden_ND = divided_by(hidden_ND, temperature)  # N·D divisions instead of N·M
    if implementation == "reference":
        return _reference(hidden_ND, targets_N, embedding_VD)
    if unique is None:
        unique = unique_targets(targets_N)
    if log_unigram_V is not None:
        num_sampled = min(num_sampled, len(log_unigram_V))
    return _deduplicated(
        hidden_ND,
        targets_N,
        embedding_VD,
        unique,
        duplicates,
        num_sampled,
        log_unigram_V,
        fused=implementation == "fused" and has_kernels_for(hidden_ND),
    )


def _needs_unigram(duplicates: str, num_sampled: int) -> bool:
    return duplicates == "logq" or num_sampled > 0


def _check_form(
    temperature: float | Tensor, duplicates: str, num_sampled: int, implementation: str
) -> None:
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)
    if num_sampled < 0:
        raise ValueError(f"num_sampled must not be negative, got {num_sampled}")
    check_choice("duplicates", duplicates, Duplicates)
    check_choice("implementation", implementation, Implementation)
    if implementation == "reference" and (duplicates != "count" or num_sampled):
        raise ValueError(
            "implementation='reference' is the paper's form: duplicates='count', num_sampled=0"
        )


class ContrastiveWeightTying(Objective):
    """The headless objective: pick the target's input embedding among the batch's targets.

    At its optimum h·e_v / T = log p(v|context) - log p(v) + const; adding log p(v) back makes the
    model a language model without a training step: the calibrated head. "unique" adds the
    log-probability that a batch holds v instead, "logq" nothing, "mask" log p(v) and a correction
    that is not a bias (docs/theory.md, 2).

    Args:
        temperature: dot products are divided by it.
        learn_temperature: train log T too, from `temperature` on.
        duplicates: the weight of a candidate that is the target of c rows: "count" c (the paper),
            "mask" c, but copies of a row's own target do not count, "unique" 1, "logq" one over its
            probability to be a candidate (an estimate of the full softmax).
        negatives: whose targets are candidates: those of this "microbatch" (the paper), of all
            micro-batches of the optimizer step on this device ("accumulated"), or of the whole
            step on all devices ("global": the loss then depends on the optimizer's batch alone,
            not on how it is cut). Only integers are needed for it, never vectors.
        num_sampled: further negatives drawn from the unigram distribution: with "count" and "mask"
            more targets, as if the batch had them; else distinct tokens that it does not hold.
        tied: score against the input embeddings; False: against a matrix of its own (the paper's
            "NCE without weight tying").
        normalize: cosines instead of dot products; wants a temperature below 1.
        stop_gradient: the scored embeddings learn from their role as inputs only.
        implementation: "deduplicated" scores the unique targets; "fused" does it in Triton
            kernels that never hold all scores, and is "deduplicated" where there is no Triton, no
            CUDA device or another dtype than bf16 and float32: not the default until a GPU has
            measured it; "reference" is the paper's N x N form. All are equal in value and
            gradients.
    """

    needs_unique = True

    def __init__(
        self,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        duplicates: Duplicates = "count",
        negatives: Negatives = "microbatch",
        num_sampled: int = 0,
        tied: bool = True,
        normalize: bool = False,
        stop_gradient: bool = False,
        implementation: Implementation = "deduplicated",
    ) -> None:
        super().__init__()
        _check_form(temperature, duplicates, num_sampled, implementation)
        check_choice("negatives", negatives, Negatives)
        if implementation == "reference" and negatives != "microbatch":
            raise ValueError("implementation='reference' is the paper's: negatives='microbatch'")
        if stop_gradient and not tied:
            raise ValueError("stop_gradient=True with tied=False would leave the matrix untrained")
        self.begin_temperature(temperature, learn_temperature)
        self.duplicates = duplicates
        self.negatives = negatives
        self.num_sampled = num_sampled
        self.tied = tied
        self.normalize = normalize
        self.stop_gradient = stop_gradient
        self.implementation = implementation
        self.only_candidates = implementation != "reference"
        self.weight_VD = None
        # From how many rows the candidates came: two forms' heads depend on it.
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.long))
        self.num_rows: Tensor
        self.register_buffer("log_unigram_V", None)
        self.log_unigram_V: Tensor | None

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        super().setup(vocab_size, hidden_size, initializer_range)
        if _needs_unigram(self.duplicates, self.num_sampled):
            self.log_unigram_V = torch.full((vocab_size,), -math.log(vocab_size))

    def set_unigram(self, count_V: Tensor) -> None:
        if self.log_unigram_V is not None:
            self.log_unigram_V.copy_(log_unigram(count_V))

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        if unique is None:
            if self.training and self.negatives != "microbatch":
                raise ValueError(
                    f"negatives={self.negatives!r} needs the table of all their targets: give "
                    "unique=unique_targets(own, all), e.g. from an all-gather of the labels"
                )
            unique = unique_targets(targets_N)
        if self.training:
            self.num_rows.copy_(unique.count_M.sum())
        loss = contrastive_weight_tying_loss(
            hidden_ND,
            targets_N,
            self.scored_table(embedding_VD),
            temperature=self.temperature_now(),
            duplicates=self.duplicates,
            num_sampled=self.num_sampled,
            log_unigram_V=self.log_unigram_V,
            normalize=self.normalize,
            stop_gradient=self.stop_gradient,
            implementation=self.implementation,
            unique=unique,
        )
        return ObjectiveOutput(loss, self.temperature_metrics())

    def with_sampled(self, unique: UniqueTargets | None) -> UniqueTargets | None:
        """Those that are none stand, as padding does, at the id of the table's first target."""
        if unique is None or self.num_sampled == 0:
            return unique
        assert self.log_unigram_V is not None
        number = min(self.num_sampled, len(self.log_unigram_V))
        dtype = at_least_float32(self.log_unigram_V[:0]).dtype
        ids, weights = candidates(unique, self.duplicates, number, self.log_unigram_V, dtype)
        ids = F.pad(ids, (0, -number % FOLD))
        weights = F.pad(weights, (0, -number % FOLD), value=-torch.inf)
        more = len(ids) - len(unique.ids_M)
        is_none = weights[-more:].isneginf()
        ids[-more:] = ids[-more:].where(~is_none, unique.ids_M[0])
        counts = F.pad(unique.count_M, (0, more))
        return unique._replace(ids_M=ids, count_M=counts, log_weight_M=weights)

    def scored(self, hidden_ND: Tensor, embedding_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states and the matrix [V, D] whose products are the scores."""
        table_VD = self.scored_table(embedding_VD)
        if self.normalize:
            hidden_ND, table_VD = _unit(hidden_ND), _unit(table_VD)
        return self.divided(hidden_ND), table_VD

    def head_bias(self, unigram_count_V: Tensor) -> Tensor | None:
        return expected_log_weights(*self._form(unigram_count_V))

    def _form(self, unigram_count_V: Tensor) -> tuple[Duplicates, Tensor, Tensor, int]:
        return self.duplicates, log_unigram(unigram_count_V), self.num_rows, self.num_sampled

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The calibrated head: logits = h·Eᵀ/T + log p(v); see the class for the other forms."""
        _, table_VD = self.scored(embedding_VD[:0], embedding_VD)
        return LMHead(
            self.divided(table_VD),
            self.head_bias(unigram_count_V),
            transform=_unit if self.normalize else None,
            own_excess_V=own_excess(*self._form(unigram_count_V)),
            is_calibrated=True,
        )

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        if self.implementation == "reference":
            return num_rows
        return num_unique + min(self.num_sampled, vocab_size)

    def describe(self) -> str:
        words = (
            "CWT" if self.tied else "NCE untied",
            self.describe_temperature(),
            self.duplicates if self.duplicates != "count" else "",
            f"{self.negatives} negatives" if self.negatives != "microbatch" else "",
            f"+{self.num_sampled} sampled" if self.num_sampled else "",
            "cosine" if self.normalize else "",
            "stop-gradient" if self.stop_gradient else "",
        )
        return f"headless ({', '.join(filter(None, words))})"
