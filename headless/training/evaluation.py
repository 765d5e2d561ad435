"""What makes two objectives comparable: scores of the same tokens under each model's own LM head.

Shapes: N rows, C rows of a chunk, D hidden size, V vocabulary, K deciles.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from headless.errors import HeadlessError
from headless.models.logits import rows_at_a_time
from headless.objectives import LMHead
from headless.objectives.base import IGNORE_INDEX

CHUNK_ROWS = 4096  # whose logits exist at a time: 0.8 GiB at V = 50,304 in float32; fewer beyond
DECILES = 10
SUMS = {  # float64: of which shape each is
    "nll_K": (DECILES,),  # nats under the head, by the target's decile
    "tokens_K": (DECILES,),
    "nll_uncalibrated": (),  # nats under a calibrated head without its bias
    "correct": (),  # top-1 under the head
}
TOTALS = {"loss": (), "tokens": (), "bytes": ()}  # float64: of all rows that count


def decile_of_token(counts_V: Tensor) -> Tensor:
    """Which tenth of a text's occurrences each token belongs to, 0 the most frequent: long [V].

    In the order of their counts, a token goes where the middle of its occurrences lies: every cut
    is the nearest that whole tokens allow. What never occurs is in the last decile.
    """
    ordered_V, id_V = counts_V.sort(descending=True, stable=True)
    twice_middle_V = 2 * ordered_V.cumsum(0) - ordered_V
    decile_V = DECILES * twice_middle_V // (2 * counts_V.sum()).clamp(min=1)
    return torch.empty_like(id_V).scatter_(0, id_V, decile_V.clamp(max=DECILES - 1))


def head_scores(
    hidden_ND: Tensor, targets_N: Tensor, head: LMHead, decile_V: Tensor
) -> dict[str, Tensor]:
    """The `SUMS` over the rows that count."""
    device = hidden_ND.device
    sums = {
        name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in SUMS.items()
    }
    deciles_K = torch.arange(DECILES, device=device)
    rows = min(CHUNK_ROWS, rows_at_a_time(len(head.weight_VD)))
    chunks = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
    for hidden_CD, targets_C in chunks:
        scores_CV = head.scores(hidden_CD)
        logits_CV = head.complete(scores_CV)
        nll_C = F.cross_entropy(
            logits_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="none"
        ).double()
        bare = nll_C.sum()
        if head.is_calibrated and logits_CV is not scores_CV:  # of another head nobody asks
            bare = F.cross_entropy(scores_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="sum")
        counts_C = targets_C != IGNORE_INDEX
        is_in_CK = (decile_V[targets_C * counts_C][:, None] == deciles_K) & counts_C[:, None]
        sums["nll_K"] += torch.where(is_in_CK, nll_C[:, None], 0.0).sum(0)
        sums["tokens_K"] += is_in_CK.sum(0)
        sums["nll_uncalibrated"] += bare
        sums["correct"] += (logits_CV.argmax(dim=-1) == targets_C).sum()
    return sums


class Validation(Metric):
    """The scores of a validation split, over uneven batches and ranks: each the mean over tokens.

    `compute()` gives the objective's own `loss` and, under the LM head that it implies, `nll`,
    `perplexity`, `accuracy`, `nll_uncalibrated`; with the bytes of the text that was scored also
    `bits_per_byte`. With the counts of the training text also `nll_decile_0` (of the most frequent
    tokens) ... `nll_decile_9`, where the split has such tokens: their mean, weighted by the tokens
    of each, is `nll`. No token at all gives NaN.

    Args:
        rows: of each batch, evenly spaced, whose targets the head is asked for; None: all. `loss`
            and the bytes are of all rows in either case.
    """

    full_state_update = False

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        if rows is not None and rows < 1:
            raise HeadlessError(f"model.val_rows must be at least 1, got {rows}")
        self.rows = rows
        for name, shape in {**SUMS, **TOTALS}.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")
        self.head: LMHead | None = None

    def begin(self, head: LMHead, unigram_counts: Tensor, *, copy: bool) -> None:
        """Score with this head; `copy` its tensors where they are whole for a moment only."""
        if copy:
            bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
            head = head._replace(weight_VD=head.weight_VD.detach().clone(), bias_V=bias_V)
        self.head = head
        self.decile_V = decile_of_token(unigram_counts)
        self.has_counts = bool(unigram_counts.any())

    def update(self, loss: Tensor, hidden_ND: Tensor, targets_N: Tensor, num_bytes: float) -> None:
        """Count a batch, whose mean loss is given; `num_bytes` 0 where nobody knows them."""
        assert self.head is not None
        counted = (targets_N != IGNORE_INDEX).sum().double()
        totals = {"loss": loss.detach().double() * counted, "tokens": counted, "bytes": num_bytes}
        if self.rows is not None and self.rows < len(targets_N):
            taken = torch.linspace(0, len(targets_N) - 1, self.rows, device=targets_N.device).long()
            hidden_ND, targets_N = hidden_ND[taken], targets_N[taken]
        sums = head_scores(hidden_ND, targets_N, self.head, self.decile_V)
        for name, value in {**sums, **totals}.items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        sums = (getattr(self, name).reshape(-1) for name in (*SUMS, *TOTALS))
        numbers = torch.cat([*sums]).tolist()
        nll_K, tokens_K = numbers[:DECILES], numbers[DECILES : 2 * DECILES]
        bare, correct, loss, counted, size = numbers[2 * DECILES :]
        total, tokens = sum(nll_K), sum(tokens_K) or math.nan
        nll = total / tokens
        scores = {
            "loss": loss / (counted or math.nan),
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "accuracy": correct / tokens,
            "nll_uncalibrated": bare / tokens,
        }
        if size:
            scores["bits_per_byte"] = nll * counted / math.log(2) / size
        if self.has_counts:
            deciles = enumerate(zip(nll_K, tokens_K, strict=True))
            scores |= {f"nll_decile_{k}": nats / count for k, (nats, count) in deciles if count}
        return scores

    def close(self) -> dict[str, float]:
        """The scores of all batches, reduced over ranks; the next validation begins anew."""
        scores = self.compute()
        if self.head is None or not self.head.is_calibrated:
            del scores["nll_uncalibrated"]
        self.head = None  # a copy of the embedding table: not kept while training
        self.reset()
        return scores
