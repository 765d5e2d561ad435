"""What makes two objectives comparable: scores of the same tokens under each model's own LM head.

Shapes: N rows, C rows of a chunk, D hidden size, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

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


class Validation(Metric):
    """The scores of a validation split, over uneven batches and ranks: each the mean over tokens.

    `compute()` gives the objective's own `loss` and, under the LM head that it implies, `nll`,
    `perplexity`, `accuracy`, `nll_uncalibrated`; with the bytes of the text that was scored also
    `bits_per_byte`. No token at all gives NaN.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in (*SUMS, "loss", "bytes"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")
        self.head: LMHead | None = None

    def begin(self, head: LMHead, *, copy: bool) -> None:
        """Score with this head; `copy` its tensors where they are whole for a moment only."""
        if copy:
            bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
            head = head._replace(weight_VD=head.weight_VD.detach().clone(), bias_V=bias_V)
        self.head = head

    def update(self, loss: Tensor, hidden_ND: Tensor, targets_N: Tensor, num_bytes: float) -> None:
        """Count a batch, whose mean loss is given; `num_bytes` 0 where nobody knows them."""
        assert self.head is not None
        sums = head_scores(hidden_ND, targets_N, self.head)
        total = loss.detach().double() * sums["tokens"]
        for name, value in {**sums, "loss": total, "bytes": num_bytes}.items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        sums = (getattr(self, name) for name in (*SUMS, "loss", "bytes"))
        total, bare, correct, tokens, loss, size = torch.stack([*sums]).tolist()
        tokens = tokens or math.nan
        nll = total / tokens
        return {
            "loss": loss / tokens,
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "accuracy": correct / tokens,
            "nll_uncalibrated": bare / tokens,
            **({"bits_per_byte": total / math.log(2) / size} if size else {}),
        }

    def close(self) -> dict[str, float]:
        """The scores of all batches, reduced over ranks; the next validation begins anew."""
        scores = self.compute()
        if self.head is None or not self.head.is_calibrated:
            del scores["nll_uncalibrated"]
        self.head = None  # a copy of the embedding table: not kept while training
        self.reset()
        return scores
