"""How high a model ranks the item that comes next, among all items: HR@k and NDCG@k.

Of each sequence of a prepared split the last item is asked for. The model reads the end of a
sequence, which stands before each, and the items before the last, as many as it can.

* `hr@k`: the share of the sequences whose item is among the k best.
* `ndcg@k`: 1 / log2(1 + rank) where it is, else 0; with one right item the ideal is 1.

Every item is a candidate, those of the history too; the end of a sequence is none. An item with the
same score as the right one counts as better.

Shapes: N sequences, B a batch, C items of a chunk, D hidden size, V ids, k results.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from headless.data.stream import open_dataset
from headless.downstream.evaluation.kinds import facts, mean
from headless.downstream.evaluation.likelihood import Progress
from headless.downstream.evaluation.tasks import Task, digest
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.decoder import check_linear, is_linear
from headless.downstream.retrieval.indexes import Kind, VectorIndex
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError
from headless.models.modeling_headless import HeadlessHead
from headless.runs.evaluations import Evaluation

CUTOFFS = (1, 5, 10, 20, 50)
SCORES = 2**24  # that exist at a time: 64 MiB
STATES = 1024  # that are scored together


class Histories(NamedTuple):
    """Sequences whose last item is asked for, and what was left out."""

    task: Task
    items: list[tuple[list[int], int]]  # what stands before it, and the item
    num_items: int  # of the catalogue: ids below it; it is the end of a sequence
    skipped: int  # of one item, before which nothing stands
    sha256: str


def read_histories(task: Task, *, limit: int | None = None, split: str | None = None) -> Histories:
    """At most `limit` sequences of a split, "validation" by default, of what was prepared."""
    path = Path(task.source)
    dataset, split = open_dataset(path), split or "validation"
    if dataset.manifest.tokenizer_sha256 is not None:
        raise HeadlessError(f"{path} holds text, not item ids: name it as text:{path}")
    if split not in dataset.manifest.splits:
        raise HeadlessError(
            f"{path} has no split {split!r}: --split {', '.join(dataset.manifest.splits)}"
        )
    stream, end = dataset.split(split), dataset.manifest.eos_token_id
    places = pairwise([*dataset.documents(split).tolist(), len(stream)])
    sequences = [stream[first : last - 1].tolist() for first, last in islice(places, limit)]
    items = [([end, *ids[:-1]], ids[-1]) for ids in sequences if len(ids) > 1]
    if not items:
        raise HeadlessError(f"the {split} split of {path} has no sequence of two items")
    return Histories(task, items, end, len(sequences) - len(items), digest(items))


def evaluate_catalogue(
    lm: LanguageModel,
    histories: Histories,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    index: Kind | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Rank the catalogue after each history: exactly, or as far as an index of faiss finds it."""
    begin, num_items = time.perf_counter(), histories.num_items
    if lm.tokenizer is not None or lm.model.config.eos_token_id != num_items:
        raise HeadlessError(
            f"{lm.place} was not trained on sequences of {num_items:,} items, as those of "
            f"{histories.task.source}: prepare them with the --num_items of its data"
        )
    longest = longest_input(lm.model, None, max_length)
    ranks = ranker(lm, num_items, index)
    rank_N = torch.zeros(len(histories.items), dtype=torch.long)
    done = 0
    for places, hidden_BD in _states(
        lm, [ids[-longest:] for ids, _ in histories.items], batch_size
    ):
        targets = [histories.items[place][1] for place in places]
        rank_N[places] = ranks(hidden_BD, torch.tensor(targets, device=hidden_BD.device)).cpu()
        done += len(places)
        progress(done, len(rank_N))
    metrics = {name: mean(values) for name, values in scores_of(rank_N).items()}
    named = "" if index is None else f" ({index} index)"
    return Evaluation(
        task=str(histories.task),
        kind=histories.task.kind,
        source=histories.task.name + named,
        data_sha256=digest([histories.sha256, index]) if index else histories.sha256,
        metrics={name: m.value for name, m in metrics.items()},
        errors={name: m.error for name, m in metrics.items() if m.error is not None},
        items=len(rank_N),
        skipped=histories.skipped,
        truncated=sum(len(ids) > longest for ids, _ in histories.items),
        settings={"max_length": longest, "num_items": num_items, "index": index},
        **facts(lm, begin),
    )


def scores_of(rank_N: Tensor) -> dict[str, list[float]]:
    """HR@k and NDCG@k of each sequence, from the rank of its item, 1 the best."""
    scores = {}
    for k in CUTOFFS:
        hit_N = rank_N <= k
        scores[f"hr@{k}"] = hit_N.double().tolist()
        if k > 1:  # where both are the same
            scores[f"ndcg@{k}"] = (hit_N / (1.0 + rank_N.double()).log2()).tolist()
    return scores


Ranker = Callable[[Tensor, Tensor], Tensor]  # of hidden states [B, D] and their items [B]: long


def ranker(lm: LanguageModel, num_items: int, index: Kind | None) -> Ranker:
    """How a model's head ranks items: 1 + how many others score as well, or are no number."""
    head: Any = lm.model.get_output_embeddings()
    if not is_linear(lm):
        if index is None and type(head).__name__ == HeadlessHead.__name__:  # an export has its own
            return partial(_ranks_under, head, num_items)
        check_linear(lm)
    weight_VD, bias_V = head.weight[:num_items].detach().float(), None
    if head.bias is not None:
        bias_V = head.bias[:num_items].detach().float()
    if index is None:
        return partial(chunked_ranks, weight_VD, bias_V)
    table = weight_VD if bias_V is None else torch.cat([weight_VD, bias_V[:, None]], dim=1)
    return partial(found_ranks, VectorIndex(table.cpu().numpy(), index, "inner"))


@torch.no_grad()
def _ranks_under(head: nn.Module, num_items: int, hidden_BD: Tensor, targets_B: Tensor) -> Tensor:
    """Under a head that takes all scores of a state to be computed: few states at a time."""
    ranks = []
    size = max(1, SCORES // num_items)
    for hidden_bD, targets_b in zip(hidden_BD.split(size), targets_B.split(size), strict=True):
        scores_bV = head(hidden_bD)[:, :num_items]
        own_b1 = scores_bV.gather(1, targets_b[:, None])
        _require_finite(own_b1)
        ranks.append((~(scores_bV < own_b1)).sum(dim=1))
    return torch.cat(ranks)


@torch.no_grad()
def chunked_ranks(
    weight_VD: Tensor, bias_V: Tensor | None, hidden_BD: Tensor, targets_B: Tensor
) -> Tensor:
    """Under a matrix and a bias: a chunk of the catalogue at a time."""
    own_B1 = (hidden_BD * weight_VD[targets_B]).sum(dim=1, keepdim=True)
    if bias_V is not None:
        own_B1 = own_B1 + bias_V[targets_B, None]
    _require_finite(own_B1)
    rank_B = torch.ones_like(targets_B)
    size = max(1, SCORES // len(hidden_BD))
    for begin in range(0, len(weight_VD), size):
        part = slice(begin, begin + size)
        scores_BC = hidden_BD @ weight_VD[part].T
        if bias_V is not None:
            scores_BC += bias_V[part]
        is_better_BC = ~(scores_BC < own_B1)
        inside = (targets_B >= begin) & (targets_B < begin + scores_BC.shape[1])
        is_better_BC[inside, targets_B[inside] - begin] = False  # the target is none itself
        rank_B += is_better_BC.sum(dim=1)
    return rank_B


def found_ranks(search: VectorIndex, hidden_BD: Tensor, targets_B: Tensor) -> Tensor:
    """Among the best that an index of the matrix (and the bias) finds; beyond them all rows."""
    more = search.rows_ND.shape[1] - hidden_BD.shape[1]
    queries_BD = F.pad(hidden_BD, (0, more), value=1.0).cpu().numpy()
    scores_Bk, ids_Bk = search.search(queries_BD, max(CUTOFFS))
    is_own_Bk = ids_Bk == targets_B.cpu().numpy()[:, None]
    own_B1 = np.where(is_own_Bk, scores_Bk, -np.inf).max(axis=1, keepdims=True)
    ranks_B = (scores_Bk >= own_B1).sum(axis=1)
    return torch.from_numpy(np.where(is_own_Bk.any(axis=1), ranks_B, len(search.rows_ND)))


def _require_finite(own_B1: Tensor) -> None:
    if not own_B1.isfinite().all():
        raise HeadlessError(
            "the model's scores are not finite: try --dtype float32, or look at its weights"
        )


@torch.inference_mode()
def _states(
    lm: LanguageModel, rows: Sequence[list[int]], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """The last hidden state of each history, float32: places and states, `STATES` or more."""
    body: Any = lm.model.base_model
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # of similar length together
    states: list[Tensor] = []
    first = 0
    for begin in range(0, len(order), batch_size):
        ids = [torch.tensor(rows[i]) for i in order[begin : begin + batch_size]]
        last_B = torch.tensor([len(row) - 1 for row in ids], device=lm.model.device)
        ids_BT = pad_sequence(ids, batch_first=True).to(lm.model.device)
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) <= last_B[:, None]
        hidden_BTD = body(input_ids=ids_BT, attention_mask=mask_BT.long()).last_hidden_state
        states.append(hidden_BTD[torch.arange(len(ids)), last_B].float())
        done = begin + len(ids)
        if done - first >= STATES or done == len(order):
            yield order[first:done], torch.cat(states)
            first, states = done, []
