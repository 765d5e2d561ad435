"""What every objective is: rows and labels in, a scalar loss out, and the LM head that it implies.

Shapes: N rows (positions of the batch, flattened), D hidden size, V vocabulary, M unique targets.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

IGNORE_INDEX = -100
FOLD = 512  # what collators pad the table of unique targets to
Negatives = Literal["microbatch", "accumulated", "global"]


class UniqueTargets(NamedTuple):
    """The distinct targets that rows are scored against, M candidates instead of N.

    They may come from more rows than the N that are scored (other micro-batches, other devices),
    and may be padded to a static M: padding entries have count 0 and any valid id.
    """

    ids_M: Tensor  # long, ids of the vocabulary
    inverse_N: Tensor  # long, position in `ids_M` of each row's target, -100 where it is ignored
    count_M: Tensor  # how often each id is a target in all those rows; 0 marks padding
    places_M: Tensor | None = None  # where the given table has their vectors; None: at their ids
    log_weight_M: Tensor | None = (
        None  # in the denominator; None: the objective decides and samples
    )

    def folded(self) -> "UniqueTargets":
        """For a compiled function, which begins with `unfolded`: see `folded`."""
        return self.mapped(folded)

    def unfolded(self) -> "UniqueTargets":
        return self.mapped(torch.flatten)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "UniqueTargets":
        """With what has an entry a candidate changed."""
        places, weights = (
            None if x_M is None else change(x_M) for x_M in (self.places_M, self.log_weight_M)
        )
        changed = change(self.ids_M), self.inverse_N, change(self.count_M)
        return UniqueTargets(*changed, places, weights)


def folded(table_M: Tensor) -> Tensor:
    """[M, ...] as [M / 512, 512, ...], for a compiled function: one graph for every M.

    A compiler that sees M vary does not know what divides it, and reads scores one by one. Of
    M / 512 rows it sees that number vary, and reads several at a time. An M that 512 does not
    divide stays as it is.
    """
    if len(table_M) % FOLD == 0:
        table_M = table_M.unflatten(0, (-1, FOLD))
    torch._dynamo.maybe_mark_dynamic(table_M, 0)
    return table_M


class ObjectiveOutput(NamedTuple):
    """A differentiable scalar and what else is worth a curve (detached scalars)."""

    loss: Tensor
    metrics: dict[str, Tensor]


class LMHead(NamedTuple):
    """How an objective's model turns hidden states into logits: transform(hidden) · weightᵀ + bias.

    With a `softcap` c the scores are c · tanh(score / c) before the bias is added.
    `own_excess_V` is for objectives whose optimum is not a softmax (see docs/theory.md):
    with r = softmax(logits), the model's distribution is proportional to r · (1 + own_excess · r).
    """

    weight_VD: Tensor
    bias_V: Tensor | None
    transform: Callable[[Tensor], Tensor] | None = None
    own_excess_V: Tensor | None = None
    is_calibrated: bool = False  # the bias was not trained: it completes what the objective omits
    softcap: float | None = None

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores [..., V] of hidden states [..., D] without the bias, at least float32.

        Computed in that precision, whatever the caller's is: in bf16 several tokens share the
        largest score, and which of them an argmax takes would depend on the head.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = at_least_float32(hidden)
            if self.transform is not None:
                hidden = self.transform(hidden)
            scores = hidden @ self.weight_VD.to(hidden.dtype).T
        return scores if self.softcap is None else self.softcap * (scores / self.softcap).tanh()

    def complete(self, scores: Tensor) -> Tensor:
        """Logits [..., V] from `scores`: their softmax is the model's distribution."""
        if self.bias_V is not None:
            scores = scores + self.bias_V
        if self.own_excess_V is not None:
            scores = scores.log_softmax(dim=-1)
            scores = scores + (self.own_excess_V * scores.exp()).log1p()
        return scores

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]."""
        return self.complete(self.scores(hidden))


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 and fp16 logits in float32, others as they are: a softmax needs the mantissa."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def divided_by(x: Tensor, temperature: float | Tensor) -> Tensor:
    """x / T; no pass over x where T is the number 1."""
    return x if not isinstance(temperature, Tensor) and temperature == 1.0 else x / temperature


def check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def log_unigram(count_V: Tensor) -> Tensor:
    """The log of the unigram distribution of `count_V` [V], float32.

    One is added to each count (Laplace), so that a token that the training text never holds has
    a small probability and not log 0.
    """
    smoothed_V = count_V.double() + 1.0
    return (smoothed_V / smoothed_V.sum()).log().float()


class Objective(nn.Module):
    """Base of all objectives. A subclass is one file, one import line and one test.

    Attributes:
        needs_unique: whether `forward` uses the table of unique targets.
        negatives: which rows that table is made from: this micro-batch's, all of the optimizer
            step's on this device ("accumulated"), or all of the step's on all ("global").
        only_candidates: whether `forward` reads no row of `embedding_VD` but those of `unique`.
    """

    needs_unique: bool = False
    negatives: Negatives = "microbatch"
    only_candidates: bool = False
    tied: bool
    weight_VD: nn.Parameter | None
    temperature: float
    log_temperature: nn.Parameter | None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast as any module; log p stays float32, for bf16 errs by up to 0.03 nats."""
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.itemsize < before.itemsize:
                self._buffers[name] = before.to(after.device, torch.float32)
        return self

    def begin_temperature(self, temperature: float, learn: bool) -> None:
        """Divide scores by a temperature, or by one that is learned from there on."""
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.log_temperature = None
        if learn:
            # One entry and not a scalar: FSDP cannot shard those.
            self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))

    def temperature_now(self) -> float | Tensor:
        if self.log_temperature is None:
            return self.temperature
        return self.log_temperature.exp().squeeze(0)

    def divided(self, x: Tensor) -> Tensor:
        """One side of the scores over the temperature: the smaller one, for speed."""
        return divided_by(x, self.temperature_now())

    def temperature_metrics(self) -> dict[str, Tensor]:
        if self.log_temperature is None:
            return {}
        return {"temperature": self.log_temperature.detach().exp().squeeze(0)}

    def describe_temperature(self) -> str:
        if self.log_temperature is not None:
            return "T learned"
        return f"T={self.temperature:g}" if self.temperature != 1.0 else ""

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        """Make the parameters whose shapes only the backbone knows; an own matrix if untied."""
        if not getattr(self, "tied", True):
            # Initialised as the family does its embeddings.
            self.weight_VD = nn.Parameter(torch.empty(vocab_size, hidden_size))
            nn.init.normal_(self.weight_VD, std=initializer_range)

    def scored_table(self, embedding_VD: Tensor) -> Tensor:
        """The matrix [V, D] that rows are scored against, of an objective with `tied`."""
        if self.tied:
            return embedding_VD
        if self.weight_VD is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}(tied=False) has no matrix before setup() was called")
        return self.weight_VD

    def set_unigram(self, count_V: Tensor) -> None:
        """Take how often each token occurs in the training text."""

    def with_sampled(self, unique: UniqueTargets | None) -> UniqueTargets | None:
        """All candidates of a step, for a caller that must know them before `forward`: those of the
        table, then the sampled ones, if any, with count 0."""
        return unique

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
            unique: the table that the collator made; made from `targets_N` when it is None.

        Returns:
            The mean loss in nats over the rows that count, 0 when none does.
        """
        raise NotImplementedError

    def after_step(self, embedding_VD: Tensor) -> None:
        """Change weights after an optimizer step, without gradients."""

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        """The head under which this objective's model is a proper language model.

        `unigram_count_V`: how often each token occurs in the training text.
        """
        raise NotImplementedError

    def take_head(self, head: LMHead) -> None:
        """Begin with the weights of another head; a ValueError says what does not fit."""
        raise ValueError(f"{type(self).__name__} has no head of its own to begin with another's")

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        """How many vectors each row is scored against: the D-long dot products of the loss."""
        raise NotImplementedError

    def describe(self) -> str:
        """A few words for tables."""
        raise NotImplementedError


def mean_over_valid(total: Tensor, targets_N: Tensor) -> Tensor:
    """`total` divided by the number of rows that count; 0 (and finite gradients) when none does."""
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)
