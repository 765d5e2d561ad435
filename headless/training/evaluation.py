"""What makes two objectives comparable: scores of the same tokens under each model's own LM head.

Shapes: N rows, C rows of a chunk, D hidden size, V vocabulary.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from headless.objectives import LMHead
from headless.objectives.base import IGNORE_INDEX

CHUNK_ROWS = 4096  # whose logits exist at a time: 0.8 GiB at V = 50,304 in float32
SUMS = ("nll", "nll_uncalibrated", "correct", "tokens")


def head_scores(hidden_ND: Tensor, targets_N: Tensor, head: LMHead) -> dict[str, Tensor]:
    """Sums over the rows that count, under a head and under the same head without its bias.

    float64 scalars: `nll` and `nll_uncalibrated` (nats), `correct` (top-1 under the head) and
    `tokens`.
    """
    zero = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
    sums = {name: zero.clone() for name in SUMS}
    chunks = zip(hidden_ND.split(CHUNK_ROWS), targets_N.split(CHUNK_ROWS), strict=True)
    for hidden_CD, targets_C in chunks:
        scores_CV = head.scores(hidden_CD)
        logits_CV = head.complete(scores_CV)
        nll = F.cross_entropy(logits_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="sum")
        bare = nll
        if logits_CV is not scores_CV:
            bare = F.cross_entropy(scores_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="sum")
        sums["nll"] += nll
        sums["nll_uncalibrated"] += bare
        sums["correct"] += (logits_CV.argmax(dim=-1) == targets_C).sum()
        sums["tokens"] += (targets_C != IGNORE_INDEX).sum()
    return sums


class LanguageModelScores(Metric):
    """Accumulates `head_scores` over batches and ranks: exact over uneven batches.

    `compute()` returns `nll`, `perplexity`, `accuracy` and `nll_uncalibrated`; with the bytes of
    the text that was scored also `bits_per_byte`. No token at all gives NaN.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in (*SUMS, "bytes"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def update(self, sums: Mapping[str, Tensor | float]) -> None:
        """Add the sums of a batch; `bytes` is left out where nobody knows them."""
        for name, value in sums.items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        states = [getattr(self, name) for name in (*SUMS, "bytes")]
        total, bare, correct, tokens, size = torch.stack(states).tolist()
        tokens = tokens or math.nan
        nll = total / tokens
        return {
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "accuracy": correct / tokens,
            "nll_uncalibrated": bare / tokens,
            **({"bits_per_byte": total / math.log(2) / size} if size else {}),
        }


class Validation(nn.Module):
    """The scores of a validation split: the objective's own loss, and those under one LM head."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric().set_dtype(torch.float64)
        self.scores = LanguageModelScores()
        self.head: LMHead | None = None

    def begin(self, head: LMHead, *, copy: bool) -> None:
        """Score with this head; `copy` its tensors where they are whole for a moment only."""
        if copy:
            bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
            head = head._replace(weight_VD=head.weight_VD.detach().clone(), bias_V=bias_V)
        self.head = head

    def add(self, loss: Tensor, hidden_ND: Tensor, targets_N: Tensor, num_bytes: float) -> None:
        """Count a batch; `num_bytes` 0 where nobody knows them."""
        assert self.head is not None
        sums = head_scores(hidden_ND, targets_N, self.head)
        self.loss.update(loss.detach().double(), sums["tokens"])
        self.scores.update(sums | {"bytes": num_bytes})

    def close(self) -> dict[str, float]:
        """The scores of all batches, reduced over ranks; the next validation begins anew."""
        scores = self.scores.compute() | {"loss": float(self.loss.compute())}
        if self.head is None or not self.head.is_calibrated:
            del scores["nll_uncalibrated"]
        self.head = None  # a copy of the embedding table: not kept while training
        self.loss.reset()
        self.scores.reset()
        return scores
