"""How likely a model finds tokens: summed log-probabilities of chosen positions of many rows.

Shapes: B rows, T positions, D hidden size, V vocabulary; M scored positions of a batch, C of them
at a time.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headless.errors import HeadlessError

CHUNK_LOGITS = 2**25  # logits that exist at a time: 128 MiB in float32
WHOLE_LOGITS = 2**27  # the same where a model gives the logits of all positions or none
PROBE_TOKENS = 8

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True)
class Row:
    """Tokens, and what the logits of some of them are to predict.

    Args:
        input_ids: what the model reads.
        positions: whose logits are scored.
        targets: a token for each of them.
    """

    input_ids: Sequence[int]
    positions: Sequence[int]
    targets: Sequence[int]


@dataclass(frozen=True)
class Score:
    """Nats of a row's targets, summed, and whether each of them is the likeliest token."""

    log_likelihood: float
    greedy: bool


def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> list[Score]:
    """Score rows, in batches of similar length, padded on the right and masked there.

    Only the scored positions meet the vocabulary, in float32 and a limited number at a time.
    Log-probabilities are summed in float64. Rows without positions score 0 and are greedy.

    Raises:
        HeadlessError: batch_size below 1, or scores that are not finite.
    """
    if batch_size < 1:
        raise HeadlessError(f"batch_size must be at least 1, got {batch_size}")
    if not rows:
        return []
    head = _exact(find_head(model))
    with torch.autocast(model.device.type, enabled=False), _wide_output(model, head):
        return _score(model, head, rows, batch_size, progress)


def _score(
    model: PreTrainedModel,
    head: nn.Module | None,
    rows: Sequence[Row],
    batch_size: int,
    progress: Progress,
) -> list[Score]:
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    scores: list[Score] = [Score(0.0, True)] * len(rows)
    done = 0
    while done < len(order):
        size = batch_size
        if head is None:  # all logits of the batch exist at once
            longest = len(rows[order[done]].input_ids)
            size = max(1, min(size, WHOLE_LOGITS // (longest * model.config.vocab_size)))
        chosen = order[done : done + size]
        batch = [rows[i] for i in chosen]
        for i, score in zip(chosen, _score_batch(model, head, batch), strict=True):
            scores[i] = score
        done += len(chosen)
        progress(done, len(order))
    return scores


@torch.inference_mode()
def find_head(model: PreTrainedModel) -> nn.Module | None:
    """The module that alone turns `last_hidden_state` into the model's logits.

    Found by trying: a probe's logits must be the model's own, bit for bit. None where the model
    does more (caps, scales, a transform in parts): its logits are then taken as they come.
    """
    ids_BT = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.vocab_size
    mask_BT = torch.ones_like(ids_BT)
    base = model.base_model
    if base is model:
        return None
    hidden_BTD = base(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    for child in model.children():
        if child is base:
            continue
        try:
            found_BTV = child(hidden_BTD)
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError):
            continue  # a module of another use: what it wants is not for us to know
        if isinstance(found_BTV, Tensor) and torch.equal(found_BTV, logits_BTV):
            return child
    return None


def _exact(head: nn.Module | None) -> nn.Module | None:
    """A head in float32 at least: in bf16 several tokens share the largest logit."""
    low = head is not None and any(p.itemsize < 4 for p in head.parameters())
    return copy.deepcopy(head).float() if head is not None and low else head


class _WideLinear(nn.Module):
    """A linear layer of half-precision weights that computes in float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.wide = copy.deepcopy(linear).float()

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores in float32."""
        return self.wide(hidden.float())


@contextmanager
def _wide_output(model: PreTrainedModel, head: nn.Module | None) -> Iterator[None]:
    """For a while, an output layer in float32 in a model whose logits are taken as they come."""
    linear: Any = model.get_output_embeddings()
    if head is not None or not isinstance(linear, nn.Linear) or linear.weight.itemsize >= 4:
        yield
        return
    name = next(name for name, module in model.named_modules() if module is linear)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, _WideLinear(linear))
    try:
        yield
    finally:
        setattr(model.get_submodule(parent), own, linear)


@torch.inference_mode()
def _score_batch(
    model: PreTrainedModel, head: nn.Module | None, batch: Sequence[Row]
) -> list[Score]:
    device = model.device
    longest = max(len(row.input_ids) for row in batch)
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for i, row in enumerate(batch):
        ids_BT[i, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask_BT[i, : len(row.input_ids)] = 1
    row_M = torch.tensor([i for i, row in enumerate(batch) for _ in row.positions], device=device)
    position_M = torch.tensor([p for row in batch for p in row.positions], device=device)
    targets_M = torch.tensor([t for row in batch for t in row.targets], device=device)
    inputs = {"input_ids": ids_BT.to(device), "attention_mask": mask_BT.to(device)}
    sums_B = torch.zeros(len(batch), dtype=torch.float64)
    missed_B = torch.zeros(len(batch), dtype=torch.float64)
    if len(row_M):
        body: Any = model if head is None else model.base_model
        output = body(**inputs)
        states_BTX = output.logits if head is None else output.last_hidden_state
        chunk = max(1, CHUNK_LOGITS // model.config.vocab_size)
        for row_C, position_C, targets_C in zip(
            row_M.split(chunk), position_M.split(chunk), targets_M.split(chunk), strict=True
        ):
            states_CX = states_BTX[row_C, position_C]
            states_CX = states_CX.to(torch.promote_types(states_CX.dtype, torch.float32))
            logits_CV = states_CX if head is None else head(states_CX)
            own_C = logits_CV.gather(1, targets_C[:, None])[:, 0]
            nats_C = (own_C - logits_CV.logsumexp(dim=-1)).double().cpu()
            wrong_C = (logits_CV.argmax(dim=-1) != targets_C).double().cpu()
            sums_B.index_add_(0, row_C.cpu(), nats_C)
            missed_B.index_add_(0, row_C.cpu(), wrong_C)
    if not sums_B.isfinite().all():
        raise HeadlessError(
            "the model's scores are not finite: try --dtype float32, or look at its weights"
        )
    return [
        Score(total, missed == 0)
        for total, missed in zip(sums_B.tolist(), missed_B.tolist(), strict=True)
    ]
