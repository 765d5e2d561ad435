"""The rows of a table that a step looks up or scores, instead of the table: no dense gradient.

Each micro-batch gets a copy of its rows [U, D], a leaf of its own, and places in it instead of
token ids. So the backward pass ends in [U, D], whatever V is; the optimizer is given (ids, rows)
(`optim.table`).

Shapes: U rows of a micro-batch, D hidden size, V vocabulary.
"""

from collections.abc import Collection

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headless.data.collate import Batch
from headless.errors import HeadlessError
from headless.models.backbone import embedding_table, is_custom
from headless.objectives import Objective, UniqueTargets
from headless.training.optim.settings import Table
from headless.training.optim.table import ROWS, RowGradient, catch_up


def tables_by_row(
    backbone: nn.Module, objective: Objective, optimizer: Table
) -> list[nn.Parameter]:
    """The tables of which a step moves some rows: the embeddings, an own matrix that is scored.

    Raises:
        HeadlessError: a step would read more rows than its tokens have.
    """
    if optimizer == "dense":
        return []
    reason = ""
    if not objective.only_candidates:
        reason = f"{objective.describe()} reads every row of the embedding table"
    elif is_custom(backbone):
        reason = "a backbone of your own looks its embeddings up itself"
    elif not embedding_table(backbone).requires_grad:
        reason = "model.freeze_backbone trains no embedding table"
    if reason:
        raise HeadlessError(f"model.optimizer.table {optimizer}: {reason}; choose dense")
    own = objective.weight_VD if objective.needs_unique else None
    return [embedding_table(backbone), *([] if own is None else [own])]


def check_sharding(by_row: Collection[nn.Parameter]) -> None:
    """Refuse to shard tables that are moved by row."""
    if by_row:
        raise HeadlessError(
            "model.optimizer.table: trainer.strategy fsdp shards the table's rows: choose ddp, "
            "or model.optimizer.table dense"
        )


def look_up(
    tables: "list[TouchedRows]", batch: Batch, unique: UniqueTargets | None
) -> tuple[UniqueTargets | None, list[Tensor]]:
    """The rows that a batch touches of each table, and where the candidates stand in them.

    Of the embeddings, those of inputs, targets and sampled candidates; of an own matrix, those of
    targets and sampled candidates. A sampled row may also be an input's: gradients are added up.
    """
    embeddings, *own = tables
    rows = [embeddings.look_up(batch["table_ids"], batch["num_table"])]
    if unique is None:
        return None, rows
    known = len(batch["unique_ids"])
    sampled_ids = unique.ids_M[known:]
    if own:
        rows.append(own[0].look_up(unique.ids_M[:known], batch["num_unique"]))
        places_M = torch.arange(known, device=unique.ids_M.device)
    else:
        places_M = batch["table_unique"]
    if number := len(sampled_ids):
        table = tables[-1]
        after = torch.arange(number, device=places_M.device) + len(rows[-1])
        rows[-1] = torch.cat([rows[-1], table.look_up(sampled_ids, number)])
        places_M = torch.cat([places_M, after])
    return unique._replace(places_M=places_M), rows


class TouchedRows:
    """What the micro-batches of an optimizer step touch of one table."""

    def __init__(self, table: nn.Parameter) -> None:
        self.table = table
        self._leaves: list[tuple[Tensor, Tensor, int]] = []  # ids, rows, how many are no padding
        self.rows: Tensor | None = None  # what a step touched; its .grad is the step's

    def look_up(self, ids_U: Tensor, count: int) -> Tensor:
        """The rows [U, D] of a micro-batch, of which those from `count` on are padding."""
        catch_up(self.table, ids_U[:count])  # on every process the same, at the same step
        leaf_UD = self.table.detach()[ids_U].requires_grad_()
        self._leaves.append((ids_U, leaf_UD, count))
        return leaf_UD

    def close(self) -> None:
        """End the step: the rows that it touched, on all processes, with their gradients.

        The gradient is the mean over processes, as DDP's is. Every process must call, and each
        gets the same rows to the bit.
        """
        parts = [
            (ids_U[:count], (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)[:count])
            for ids_U, leaf, count in self._leaves
        ]
        self._leaves = []
        ids, grads = (torch.cat(side) for side in zip(*parts, strict=True))
        several = len(parts) > 1
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            ids, grads, several = *exchange(ids, grads), True
        if several:  # a sum in a fixed order, on a GPU too
            shape = tuple(self.table.shape)
            parted = torch.sparse_coo_tensor(ids[None], grads, shape, check_invariants=False)
            summed = parted.coalesce()
            ids, grads = summed.indices()[0], summed.values()
        self.rows = torch.empty_like(grads).requires_grad_()
        self.rows.grad = grads
        setattr(self.table, ROWS, RowGradient(ids, grads))


def exchange(ids: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
    """All processes' ids and rows, in their order; the rows over the number of processes.

    Rows are what is sent, never the table. How many there are is known only to each process: their
    numbers go first, and are waited for.
    """
    world = dist.get_world_size()
    counts = [torch.empty(1, dtype=torch.long, device=ids.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(ids)], device=ids.device))
    numbers = [int(count) for count in counts]
    most = max(numbers)
    padded_ids = torch.cat([ids, ids.new_zeros(most - len(ids))])
    padded = torch.cat([grads, grads.new_zeros(most - len(grads), grads.shape[1])])
    all_ids = [torch.empty_like(padded_ids) for _ in range(world)]
    all_grads = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(all_ids, padded_ids)
    dist.all_gather(all_grads, padded)
    cut_ids = torch.cat([x[:n] for x, n in zip(all_ids, numbers, strict=True)])
    cut = torch.cat([x[:n] for x, n in zip(all_grads, numbers, strict=True)])
    return cut_ids, cut / world
