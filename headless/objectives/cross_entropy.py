"""The standard language-modelling objective: cross-entropy over the whole vocabulary.

Shapes: N rows, D hidden size, V vocabulary, C rows of a chunk.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headless.objectives.base import (
    IGNORE_INDEX,
    LMHead,
    Objective,
    ObjectiveOutput,
    UniqueTargets,
    at_least_float32,
    check_choice,
    check_positive,
    log_unigram,
    mean_over_valid,
)

UnigramBias = Literal["none", "fixed", "initial"]
Transform = Literal["none", "mlm"]
MAX_LOGITS = 2**28  # logits that exist at a time under chunk_size="auto": 1 GiB in float32
TILE = 128  # rows that a GPU's matrix products take at a time


class _Form(NamedTuple):
    """How logits are made of scores, and what is asked of them besides the target."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None

    def cap(self, scores: Tensor) -> Tensor:
        return scores if self.softcap is None else scores.div(self.softcap).tanh() * self.softcap


@torch.library.custom_op("headless::add_product", mutates_args={"total"})
def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a · b, in the precision of `total` where the device can.

    An operator of its own: a compiler that knows the sums would put them off until the last, and
    keep the product of every chunk until then.
    """
    if a.is_cuda and a.dtype in (torch.bfloat16, torch.float16):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


@_add_product.register_fake
def _(total: Tensor, a: Tensor, b: Tensor) -> None:
    return None


def _subtract_own(d_logits_CV: Tensor, own_C1: Tensor, amount: float) -> Tensor:
    """The gradient of the target's own logit less `amount`."""
    if torch.compiler.is_compiling():  # a scatter is no part of a larger kernel: this is
        id_V = torch.arange(d_logits_CV.shape[1], device=own_C1.device)
        return torch.where(id_V == own_C1, d_logits_CV - amount, d_logits_CV)
    return d_logits_CV.scatter_add_(1, own_C1, torch.full_like(d_logits_CV[:, :1], -amount))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed loss with the gradients made in the forward pass, chunk by chunk.

    Each chunk's logits are computed once (6·N·V·D FLOPs in all, where recomputing them would take
    8), and the weight's gradient is summed over the chunks in float32: in bf16 its error grows with
    their number, which is what torch's own chunked operator does.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        targets_N: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        form: _Form,
        chunk_size: int,
        with_gradients: bool,
    ) -> Tensor:
        label_smoothing, z_loss, softcap = form
        vocab_size = len(weight_VD)
        dtype = at_least_float32(hidden_ND[:0]).dtype
        total = hidden_ND.new_zeros((), dtype=dtype)
        d_hidden = []
        d_weight = torch.zeros_like(weight_VD if with_gradients else weight_VD[:0], dtype=dtype)
        d_bias = None if bias_V is None else torch.zeros_like(bias_V, dtype=dtype)
        for hidden_CD, targets_C in zip(
            hidden_ND.split(chunk_size), targets_N.split(chunk_size), strict=True
        ):
            scores_CV = form.cap(at_least_float32(hidden_CD @ weight_VD.T))
            logits_CV = scores_CV if bias_V is None else scores_CV + bias_V
            valid_C1 = (targets_C != IGNORE_INDEX)[:, None]
            own_C1 = targets_C.clamp(min=0)[:, None]
            log_z_C1 = logits_CV.logsumexp(dim=-1, keepdim=True)
            nll_C1 = log_z_C1 - (1 - label_smoothing) * logits_CV.gather(1, own_C1)
            if label_smoothing:
                nll_C1 = nll_C1 - label_smoothing * logits_CV.mean(dim=-1, keepdim=True)
            total = total + (nll_C1 + z_loss * log_z_C1.square()).where(valid_C1, 0.0).sum()
            if not with_gradients:
                continue
            d_logits_CV = (logits_CV - log_z_C1).exp_()
            if z_loss:
                d_logits_CV = d_logits_CV.mul_(1 + 2 * z_loss * log_z_C1)
            if label_smoothing:
                d_logits_CV = d_logits_CV.sub_(label_smoothing / vocab_size)
            d_logits_CV = _subtract_own(d_logits_CV, own_C1, 1 - label_smoothing)
            d_logits_CV = d_logits_CV.masked_fill_(~valid_C1, 0.0)
            if d_bias is not None:
                d_bias = d_bias + d_logits_CV.sum(dim=0)
            if softcap is not None:
                d_logits_CV = d_logits_CV.mul_(1 - (scores_CV / softcap).square())
            d_logits_CV = d_logits_CV.to(hidden_CD.dtype)
            d_hidden.append(d_logits_CV @ weight_VD)
            _add_product(d_weight, d_logits_CV.T, hidden_CD)
        if with_gradients:
            ctx.save_for_backward(torch.cat(d_hidden), d_weight.to(weight_VD.dtype), d_bias)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        d_hidden, d_weight, d_bias = (
            None if d is None else d * d_total.to(d.dtype) for d in ctx.saved_tensors
        )
        return d_hidden, None, d_weight, d_bias, None, None, None


def _unchunked(
    hidden_ND: Tensor,
    targets_N: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    form: _Form,
) -> Tensor:
    logits_NV = form.cap(at_least_float32(hidden_ND @ weight_VD.T))
    if bias_V is not None:
        logits_NV = logits_NV.add_(bias_V)  # in place: nobody else needs a product's result
    nll = F.cross_entropy(
        logits_NV,
        targets_N,
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=form.label_smoothing,
    )
    if form.z_loss == 0.0:
        return nll
    log_z_N = logits_NV.logsumexp(dim=-1)
    return nll + form.z_loss * log_z_N.square().where(targets_N != IGNORE_INDEX, 0.0).sum()


def _rows_of_a_chunk(rows: int, limit: int) -> int:
    """At most `limit`: equal chunks, where there is room for it of whole tiles."""
    tile = TILE if limit >= TILE else 1
    parts = -(-rows // (limit - limit % tile))
    return -(-rows // (parts * tile)) * tile


def cross_entropy_loss(
    hidden_ND: Tensor,
    targets_N: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    chunk_size: int | Literal["auto"] | None = "auto",
) -> Tensor:
    """Mean cross-entropy of `hidden · weightᵀ + bias` against the targets, in nats.

    Args:
        hidden_ND: output vectors.
        targets_N: long; rows with -100 do not count.
        weight_VD: one vector a token of the vocabulary.
        bias_V: a number a token, or None.
        label_smoothing: as for `CrossEntropy`, like z_loss, softcap and chunk_size.

    Returns:
        A scalar; 0 with finite gradients when no row counts.
    """
    rows, form = len(targets_N), _Form(label_smoothing, z_loss, softcap)
    if chunk_size == "auto":
        chunk_size = max(1, MAX_LOGITS // len(weight_VD))
    if chunk_size is None or chunk_size >= rows:
        total = _unchunked(hidden_ND, targets_N, weight_VD, bias_V, form)
    else:
        if torch.is_autocast_enabled(hidden_ND.device.type):  # it does not look into a Function
            dtype = torch.get_autocast_dtype(hidden_ND.device.type)
            hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
        total = _ChunkedCrossEntropy.apply(
            hidden_ND,
            targets_N,
            weight_VD,
            bias_V,
            form,
            _rows_of_a_chunk(rows, chunk_size),
            torch.is_grad_enabled(),
        )
    return mean_over_valid(total, targets_N)


class MaskedHeadTransform(nn.Module):
    """What BERT's masked-LM head does before the vocabulary: dense, GELU, LayerNorm.

    (Devlin et al. 2019; `cls.predictions.transform` in Transformers' BERT, `vocab_transform` and
    `vocab_layer_norm` in its DistilBERT.) models/modeling_headless.py has its twin: that file must
    stand alone in an export, and this one goes without transformers.
    """

    def __init__(self, hidden_size: int, initializer_range: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-12)
        nn.init.normal_(self.dense.weight, std=initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden)))


class CrossEntropy(Objective):
    """The standard LM head: every row is scored against the whole vocabulary.

    Its head is the one that it was trained with. With `tied` and `unigram_bias="fixed"`, this is
    the limit of CWT for many negatives: the same head, calibrated in the same way.

    Args:
        tied: score against the input embeddings instead of a matrix of the head's own.
        unigram_bias: "fixed" adds log p(v) of the training text to the logits, "initial" a
            trained bias that begins there.
        transform: "mlm" puts the BERT family's dense layer, GELU and LayerNorm before the
            vocabulary and a trained bias after it.
        temperature: scores are divided by it.
        learn_temperature: train log T too, from `temperature` on.
        softcap: c of c · tanh(score / c), which is done before the bias (Gemma 2, §2); None: none.
        mu_centering: take the mean row off the scored matrix after each step, against drifting
            logits (Stollenwerk and Stollenwerk 2026); a softmax without a softcap does not see it.
        z_loss: weight of the mean squared log-partition (PaLM, §5), against drifting logits.
        label_smoothing: mass spread over the vocabulary.
        chunk_size: rows whose logits exist at a time; None: all of them; "auto": as many as make
            2^28 logits (1 GiB in float32).
    """

    def __init__(
        self,
        tied: bool = False,
        unigram_bias: UnigramBias = "none",
        transform: Transform = "none",
        temperature: float = 1.0,
        learn_temperature: bool = False,
        softcap: float | None = None,
        mu_centering: bool = False,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        chunk_size: int | Literal["auto"] | None = "auto",
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if not 0.0 <= z_loss < math.inf:
            raise ValueError(f"z_loss must not be negative, got {z_loss}")
        if isinstance(chunk_size, int) and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        if softcap is not None:
            check_positive("softcap", softcap)
        self.begin_temperature(temperature, learn_temperature)
        check_choice("unigram_bias", unigram_bias, UnigramBias)
        check_choice("transform", transform, Transform)
        self.tied = tied
        self.only_candidates = not tied  # it has no candidates, and reads no row
        self.unigram_bias = unigram_bias
        self.with_transform = transform == "mlm"
        self.softcap = softcap
        self.mu_centering = mu_centering
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_size = chunk_size
        self.weight_VD = None
        self.transform: MaskedHeadTransform | None = None
        self.bias_V: nn.Parameter | None = None
        self.register_buffer("log_unigram_V", None)
        self.log_unigram_V: Tensor | None

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        super().setup(vocab_size, hidden_size, initializer_range)
        if self.with_transform:
            self.transform = MaskedHeadTransform(hidden_size, initializer_range)
        if self.with_transform or self.unigram_bias == "initial":
            self.bias_V = nn.Parameter(torch.zeros(vocab_size))
        if self.unigram_bias == "fixed":
            self.log_unigram_V = torch.zeros(vocab_size)

    def set_unigram(self, count_V: Tensor) -> None:
        if self.unigram_bias == "fixed" and self.log_unigram_V is not None:
            self.log_unigram_V.copy_(log_unigram(count_V))
        elif self.unigram_bias == "initial" and self.bias_V is not None:
            with torch.no_grad():
                self.bias_V.copy_(log_unigram(count_V))

    def _bias(self) -> Tensor | None:
        parts = [part for part in (self.bias_V, self.log_unigram_V) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        if self.transform is not None:
            hidden_ND = self.transform(hidden_ND)
        loss = cross_entropy_loss(
            self.divided(hidden_ND),
            targets_N,
            self.scored_table(embedding_VD),
            self._bias(),
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            softcap=self.softcap,
            chunk_size=self.chunk_size,
        )
        return ObjectiveOutput(loss, self.temperature_metrics())

    def after_step(self, embedding_VD: Tensor) -> None:
        if self.mu_centering:
            table_VD = self.scored_table(embedding_VD)
            table_VD.sub_(table_VD.sum(dim=0, keepdim=True) / len(table_VD))

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        weight_VD = self.divided(self.scored_table(embedding_VD))
        return LMHead(weight_VD, self._bias(), self.transform, softcap=self.softcap)

    def take_head(self, head: LMHead) -> None:
        if self.weight_VD is None:
            raise ValueError("the head is tied to the embeddings: set tied to false")
        if head.own_excess_V is not None or (head.transform is not None) != self.with_transform:
            raise ValueError("the other head is more than a matrix and a bias")
        if head.bias_V is not None and self.bias_V is None:
            raise ValueError("the other head has a bias: set unigram_bias to initial to hold it")
        if head.softcap != self.softcap:
            raise ValueError(f"the other head has the softcap {head.softcap}, not {self.softcap}")
        self.weight_VD.copy_(head.weight_VD * self.temperature_now())
        if self.bias_V is not None:
            bias_V = torch.zeros_like(self.bias_V) if head.bias_V is None else head.bias_V
            fixed_V = 0.0 if self.log_unigram_V is None else self.log_unigram_V
            self.bias_V.copy_(bias_V - fixed_V)
        if self.transform is not None and isinstance(head.transform, nn.Module):
            self.transform.load_state_dict(head.transform.state_dict())

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        dense = 0 if self.transform is None else self.transform.dense.out_features
        return vocab_size + dense

    def describe(self) -> str:
        words = (
            "tied" if self.tied else "untied",
            f"{self.unigram_bias} unigram bias" if self.unigram_bias != "none" else "",
            "MLM transform" if self.with_transform else "",
            self.describe_temperature(),
            f"softcap {self.softcap:g}" if self.softcap else "",
            "μ-centering" if self.mu_centering else "",
        )
        return f"cross-entropy ({', '.join(filter(None, words))})"
