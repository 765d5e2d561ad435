"""Batches from blocks: inputs, targets one token later, and the table of unique targets.

Shapes: B batch, T time, N = B·T rows, M unique targets, V vocabulary.
"""

from typing import Any

import numpy as np
import torch

IGNORE_INDEX = -100


def unique_table(
    targets_N: np.ndarray, vocab_size: int, pad_multiple: int = 512
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The unique targets of a batch, padded so that a compiled step meets few shapes.

    Counting into the vocabulary and reading the result back is linear, without a sort.

    Args:
        targets_N: int64; -100 marks rows that do not count.
        vocab_size: V; every other target is in [0, V).
        pad_multiple: M is rounded up to a multiple of it with id 0 and count 0.

    Returns:
        ids [M] ascending, position of each row's target among them [N] (-100 where ignored),
        counts [M], and the number of true entries. A batch in which no row counts gets one entry
        with count 1, so that a softmax over the table is defined.
    """
    valid_N = targets_N != IGNORE_INDEX
    count_V = np.bincount(targets_N[valid_N], minlength=vocab_size)
    ids = np.flatnonzero(count_V)
    counts = count_V[ids]
    position_V = np.full(vocab_size, IGNORE_INDEX, dtype=np.int64)
    position_V[ids] = np.arange(len(ids))
    inverse_N = np.where(valid_N, position_V[targets_N.clip(min=0)], IGNORE_INDEX)
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


class CausalCollator:
    """Makes the batch of a causal language model; runs in the loader's workers.

    Args:
        vocab_size: V.
        pad_multiple: the table of unique targets is padded to a multiple of it.
    """

    def __init__(self, vocab_size: int, pad_multiple: int = 512) -> None:
        self.vocab_size = vocab_size
        self.pad_multiple = pad_multiple

    def __call__(self, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """A batch from what `BlockDataset.__getitems__` returned.

        Returns:
            `input_ids` and `targets` (long [B, T], targets -100 where there is none),
            `unique_ids` [M], `unique_inverse` [B·T], `unique_counts` [M] (long), and the plain
            numbers `num_tokens` (real input tokens) and `num_unique`.
        """
        tokens_BT1, lengths_B = batch
        targets_BT = tokens_BT1[:, 1:].copy()
        targets_BT[np.arange(targets_BT.shape[1]) >= lengths_B[:, None]] = IGNORE_INDEX
        ids, inverse, counts, num_unique = unique_table(
            targets_BT.reshape(-1), self.vocab_size, self.pad_multiple
        )
        return {
            "input_ids": torch.from_numpy(tokens_BT1[:, :-1].copy()),
            "targets": torch.from_numpy(targets_BT),
            "unique_ids": torch.from_numpy(ids),
            "unique_inverse": torch.from_numpy(inverse),
            "unique_counts": torch.from_numpy(counts),
            "num_tokens": int(lengths_B.sum()),
            "num_unique": num_unique,
        }
