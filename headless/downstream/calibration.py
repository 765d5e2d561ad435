"""Post-hoc calibration of a head on held-out text: logits = scale · scores + bias_scale · bias.

The loss is convex in the two numbers (a mean of log-sum-exps of affine functions). Without a bias
it is temperature scaling (Guo et al. 2017, §4.2).

Shapes: N rows, D hidden size, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headless.data.collate import Batch
from headless.errors import HeadlessError
from headless.models.backbone import hidden_states
from headless.objectives import LMHead
from headless.objectives.base import IGNORE_INDEX

CHUNK_ROWS = 2048
MAX_STEPS = 30  # two unknowns need few


@dataclass(frozen=True)
class Calibration:
    """Two numbers and what they do, in nats a token."""

    scale: float  #: an inverse temperature
    bias_scale: float
    nll_before: float = float("nan")  #: on the `report_tokens`, with both at 1
    nll_after: float = float("nan")  #: on the same text
    fit_tokens: int = 0  #: that they were fitted to
    report_tokens: int = 0

    def apply(self, head: LMHead) -> LMHead:
        """The head with both numbers in it."""
        bias_V = None if head.bias_V is None else head.bias_V * self.bias_scale
        softcap = None if head.softcap is None else head.softcap * abs(self.scale)
        return head._replace(weight_VD=head.weight_VD * self.scale, bias_V=bias_V, softcap=softcap)


@torch.no_grad()
def collect(backbone: Any, batches: Iterable[Batch]) -> list[tuple[Tensor, Tensor]]:
    """Hidden states [N, D] and targets [N] of each batch, rows without a target left out."""
    collected = []
    for batch in batches:
        hidden_ND = hidden_states(backbone, batch["input_ids"]).flatten(0, 1)
        if (rows_N := batch.get("rows")) is not None:
            hidden_ND = hidden_ND.index_select(0, rows_N)
        targets_N = batch["targets"].flatten()
        kept_N = targets_N != IGNORE_INDEX
        collected.append((hidden_ND[kept_N], targets_N[kept_N]))
    return collected


def calibrate(head: LMHead, data: list[tuple[Tensor, Tensor]]) -> Calibration:
    """Fit on the batches (see `collect`) with even numbers, report on those with odd ones."""
    if head.own_excess_V is not None:
        raise HeadlessError(
            "the head of duplicates=mask is no softmax of a sum: it cannot be fitted; export it "
            "without --fit"
        )
    if len(data) < 2:
        raise HeadlessError("fitting needs at least two batches of held-out text")
    fit, report = data[::2], data[1::2]
    start = torch.ones(2, dtype=torch.float64, device=data[0][0].device)
    numbers = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [numbers], max_iter=MAX_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def closure() -> float:
        optimizer.zero_grad()
        return _nll(head, fit, numbers)

    optimizer.step(closure)
    best = numbers.detach()
    if head.bias_V is None:
        best[1] = 1.0
    return Calibration(
        float(best[0]),
        float(best[1]),
        nll_before=_nll(head, report, start),
        nll_after=_nll(head, report, best),
        fit_tokens=sum(len(targets) for _, targets in fit),
        report_tokens=sum(len(targets) for _, targets in report),
    )


def _nll(head: LMHead, data: list[tuple[Tensor, Tensor]], numbers: Tensor) -> float:
    """Mean negative log-likelihood; its gradient is added to that of `numbers`."""
    total, count = 0.0, sum(len(targets) for _, targets in data)
    for hidden_ND, targets_N in data:
        pieces = zip(hidden_ND.split(CHUNK_ROWS), targets_N.split(CHUNK_ROWS), strict=True)
        for hidden_CD, targets_C in pieces:
            with torch.no_grad():
                scores_CV = head.scores(hidden_CD)
            scale, bias_scale = numbers.to(scores_CV.dtype)
            logits_CV = scores_CV * scale
            if head.bias_V is not None:
                logits_CV = logits_CV + head.bias_V.detach() * bias_scale
            nll = F.cross_entropy(logits_CV, targets_C, reduction="sum").double() / count
            if nll.requires_grad:
                nll.backward()
            total += nll.item()
    return total
