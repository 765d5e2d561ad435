"""Batches from blocks: inputs, targets, and the table of unique targets.

Shapes: B batch, T time, N rows that are scored (B·T in a causal model), M unique targets,
V vocabulary, U rows of the embedding table that a step reads; R blocks, each with K of the rows, S
tokens of a block.
"""

from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from headless.data.blocks import BatchBlocks, Blocks

IGNORE_INDEX = -100
FEW = 8  # a vocabulary of more entries than so many a row is not counted through, but rows sorted


class Batch(TypedDict):
    """What a collator makes of blocks; all shapes but M are the same for every batch."""

    input_ids: Tensor  # long [B, T]
    targets: Tensor  # long, -100 where there is none: [B, T], or [N] with `rows`
    rows: NotRequired[Tensor]  # long [N]: places among the B·T, where only some are scored
    unique_ids: NotRequired[Tensor]  # long [M]
    unique_inverse: NotRequired[Tensor]  # long [N]
    unique_counts: NotRequired[Tensor]  # long [M]
    table_ids: NotRequired[Tensor]  # long [U]: inputs and unique targets, ascending, then padding
    table_inputs: NotRequired[Tensor]  # long [B, T]: places of the inputs among them
    table_unique: NotRequired[Tensor]  # long [M]: places of the unique targets among them
    num_table: NotRequired[int]  # entries of table_ids before the padding
    num_tokens: int  # real input tokens
    num_targets: int  # rows that count
    num_unique: int
    num_bytes: NotRequired[float]  # of the text that the targets stand for, where it is known


def unique_table(
    targets_N: np.ndarray,
    vocab_size: int,
    pad_multiple: int = 512,
    others_K: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The unique targets of a batch, padded so that a compiled step meets few shapes.

    Counting into the vocabulary and reading the result back is linear, without a sort; a large
    vocabulary costs nothing, for there the rows are sorted.

    Args:
        targets_N: int64 in [0, V); -100 marks rows that do not count.
        pad_multiple: M is rounded up to a multiple of it with id 0 and count 0.
        others_K: int64; targets of rows elsewhere that are negatives too.

    Returns:
        ids [M] ascending, position of each row's target among them [N] (-100 where ignored),
        counts [M], and the number of true entries. A batch in which no row counts gets one entry
        with count 1, so that a softmax over the table is defined.
    """
    valid_N = targets_N != IGNORE_INDEX
    counted = targets_N[valid_N]
    if others_K is not None:
        counted = np.concatenate([counted, others_K[others_K != IGNORE_INDEX]])
    if vocab_size > FEW * len(targets_N):
        ids, counts = np.unique(counted, return_counts=True)
        if len(ids) and ids[-1] >= vocab_size:
            raise IndexError(f"the target {ids[-1]} is outside a vocabulary of {vocab_size}")
        places_N = np.searchsorted(ids, targets_N)
    else:
        count_V = np.bincount(counted, minlength=vocab_size)
        ids = np.flatnonzero(count_V)
        counts = count_V[ids]
        position_V = np.empty(vocab_size, dtype=np.int64)
        position_V[ids] = np.arange(len(ids))
        places_N = position_V[targets_N.clip(min=0)]
    inverse_N = np.where(valid_N, places_N, IGNORE_INDEX)
    num_unique = len(ids)
    if num_unique == 0:
        ids, counts = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    padding = -len(ids) % pad_multiple
    return (
        np.pad(ids, (0, padding)).astype(np.int64),
        inverse_N,
        np.pad(counts, (0, padding)).astype(np.int64),
        num_unique,
    )


def touched_table(
    inputs_BT: np.ndarray, ids_M: np.ndarray, num_unique: int, pad_multiple: int
) -> dict[str, Any]:
    """The rows of the embedding table that a step reads: a batch's `table_...`.

    Padding, of either list, stands at id 0; nothing of it counts.
    """
    own = ids_M[: max(1, num_unique)]
    ids, places = np.unique(np.concatenate([inputs_BT.reshape(-1), own]), return_inverse=True)
    inputs, unique = np.split(places.reshape(-1), [inputs_BT.size])
    return {
        "table_ids": torch.from_numpy(np.pad(ids, (0, -len(ids) % pad_multiple))),
        "table_inputs": torch.from_numpy(inputs.reshape(inputs_BT.shape)),
        "table_unique": torch.from_numpy(np.pad(unique, (0, len(ids_M) - len(own)))),
        "num_table": len(ids),
    }


class Examples(NamedTuple):
    """What a task makes of blocks."""

    inputs_RT: np.ndarray  # int64
    targets_RK: np.ndarray  # int64, -100 where there is no target
    positions_RK: np.ndarray | None  # int64, in 0 ... T-1, where the targets are; None: everywhere


class Collator:
    """Makes a batch from blocks, in the loader's workers; a task says what its targets are."""

    lookahead: int = 0  #: how many tokens beyond its T inputs a block must have read
    pad_multiple: int = 512  #: see `unique_table`
    with_table: bool = False  #: whether batches say which rows of the embedding table they read

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.bytes_V: np.ndarray | None = None  #: bytes of text of each token, where they count

    def examples(self, blocks: Blocks) -> Examples:
        """A function of the blocks, their epoch and indices alone: so every process knows the
        targets of all others."""
        raise NotImplementedError

    def __call__(self, batch: BatchBlocks) -> Batch:
        inputs_BT, targets_BK, positions_BK = self.examples(batch.own)
        others_K = None
        if len(batch.others.indices_R):
            others_K = self.examples(batch.others).targets_RK.reshape(-1)
        ids, inverse, counts, num_unique = unique_table(
            targets_BK.reshape(-1), self.vocab_size, self.pad_multiple, others_K
        )
        counted = targets_BK[targets_BK != IGNORE_INDEX]
        made: Batch = {
            "input_ids": torch.from_numpy(inputs_BT),
            "targets": torch.from_numpy(targets_BK),
            "unique_ids": torch.from_numpy(ids),
            "unique_inverse": torch.from_numpy(inverse),
            "unique_counts": torch.from_numpy(counts),
            "num_tokens": int(batch.own.lengths_R.sum()),
            "num_targets": len(counted),
            "num_unique": num_unique,
        }
        if positions_BK is not None:
            first_B1 = np.arange(len(inputs_BT))[:, None] * inputs_BT.shape[1]
            rows_BK = np.where(targets_BK == IGNORE_INDEX, 0, first_B1 + positions_BK)
            made["targets"] = torch.from_numpy(targets_BK.reshape(-1))
            made["rows"] = torch.from_numpy(rows_BK.reshape(-1))
        if self.with_table:
            made.update(touched_table(inputs_BT, ids, num_unique, self.pad_multiple))  # type: ignore[typeddict-item]
        if self.bytes_V is not None:
            made["num_bytes"] = float(self.bytes_V[counted].sum())
        return made


class CausalCollator(Collator):
    """The task of a causal language model: each position's target is the token after it."""

    lookahead = 1

    def examples(self, blocks: Blocks) -> Examples:
        targets_RT = blocks.tokens_RS[:, 1:].copy()
        targets_RT[np.arange(targets_RT.shape[1]) >= blocks.lengths_R[:, None]] = IGNORE_INDEX
        return Examples(blocks.tokens_RS[:, :-1].copy(), targets_RT, None)
