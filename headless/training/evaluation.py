"""What makes two objectives comparable: scores of the same tokens under each model's own LM head.

Shapes: N rows, C rows of a chunk, D hidden size, V vocabulary.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from headless.objectives import LMHead
from headless.objectives.base import IGNORE_INDEX

CHUNK_ROWS = 4096  # rows whose logits exist at a time: 0.8 GiB at V = 50,304 in float32


def head_scores(
    hidden_ND: Tensor, targets_N: Tensor, head: LMHead, chunk_rows: int = CHUNK_ROWS
) -> dict[str, Tensor]:
    """Sums over the rows that count, under a head and under the same head without its bias.

    Returns:
        float64 scalars: `nll` and `nll_uncalibrated` (nats), `correct` (top-1 under the head)
        and `tokens`.
    """
    sums = {
        name: torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
        for name in ("nll", "nll_uncalibrated", "correct", "tokens")
    }
    for hidden_CD, targets_C in zip(
        hidden_ND.split(chunk_rows), targets_N.split(chunk_rows), strict=True
    ):
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
    the text that was scored also `bits_per_byte`.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("nll", "nll_uncalibrated", "correct", "tokens", "bytes"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def update(self, sums: Mapping[str, Tensor | float]) -> None:
        """Add the sums of a batch; `bytes` is left out where nobody knows them."""
        for name, value in sums.items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        """Means over all tokens; no token at all gives NaN."""
        states = [self.nll, self.nll_uncalibrated, self.correct, self.tokens, self.bytes]
        total, bare, correct, tokens, size = torch.stack(states).tolist()  # type: ignore[arg-type]
        tokens = tokens or math.nan
        nll = total / tokens
        return {
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "accuracy": correct / tokens,
            "nll_uncalibrated": bare / tokens,
            **({"bits_per_byte": total / math.log(2) / size} if size else {}),
        }
