"""Batches: the causal shift and the table of unique targets, against a sort."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headless.data.blocks import BatchBlocks, Blocks
from headless.data.collate import IGNORE_INDEX, CausalCollator, unique_table

V = 40
targets = hnp.arrays(
    np.int64, st.integers(1, 200), elements=st.integers(0, V - 1) | st.just(IGNORE_INDEX)
)


def blocks_of(tokens_RS: np.ndarray, lengths_R: list[int]) -> Blocks:
    """As the dataset reads them."""
    return Blocks(0, np.arange(len(tokens_RS)), tokens_RS, np.array(lengths_R))


def batch_of(tokens_RS: np.ndarray, lengths_R: list[int]) -> BatchBlocks:
    """A batch without other blocks."""
    return BatchBlocks(blocks_of(tokens_RS, lengths_R), blocks_of(tokens_RS[:0], []))


@given(targets_N=targets, multiple=st.sampled_from([1, 4, 512]))
def test_the_table_is_what_sorting_finds(targets_N: np.ndarray, multiple: int) -> None:
    ids, inverse, counts, num_unique = unique_table(targets_N, V, multiple)
    valid = targets_N != IGNORE_INDEX
    expected_ids, expected_inverse, expected_counts = np.unique(
        targets_N[valid], return_inverse=True, return_counts=True
    )
    assert num_unique == len(expected_ids)
    assert np.array_equal(ids[:num_unique], expected_ids)
    assert np.array_equal(inverse[valid], expected_inverse)
    assert (inverse[~valid] == IGNORE_INDEX).all()
    if num_unique:
        assert np.array_equal(counts[:num_unique], expected_counts)
        assert (counts[num_unique:] == 0).all()
    else:
        assert counts[0] == 1  # a softmax over the table stays defined
        assert (counts[1:] == 0).all()
    assert (ids[num_unique:] == 0).all()
    assert len(ids) == len(counts)
    assert len(ids) % multiple == 0
    assert len(ids) - max(1, num_unique) < multiple
    assert {ids.dtype, inverse.dtype, counts.dtype} == {np.dtype(np.int64)}


@given(targets_N=targets, others_K=targets)
def test_targets_elsewhere_are_candidates_too(targets_N: np.ndarray, others_K: np.ndarray) -> None:
    """Against a plain count of both."""
    ids, inverse, counts, num_unique = unique_table(targets_N, V, 1, others_K)
    both = Counter(t for t in [*targets_N.tolist(), *others_K.tolist()] if t != IGNORE_INDEX)
    if both:
        assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == both
        assert ids.tolist() == sorted(both)
    assert num_unique == len(both)
    expected = [IGNORE_INDEX if t == IGNORE_INDEX else sorted(both).index(t) for t in targets_N]
    assert inverse.tolist() == expected


def test_the_table_of_a_batch_counts_the_blocks_beside_it() -> None:
    own = blocks_of(np.array([[5, 6, 7]]), [2])
    others = blocks_of(np.array([[1, 6, 9], [2, 3, 0], [0, 0, 0]]), [2, 1, 0])
    collate = CausalCollator(V)
    collate.pad_multiple = 8
    batch = collate(BatchBlocks(own, others))
    assert batch["unique_ids"].tolist() == [3, 6, 7, 9, 0, 0, 0, 0]
    assert batch["unique_counts"].tolist() == [1, 2, 1, 1, 0, 0, 0, 0]
    assert batch["unique_inverse"].tolist() == [1, 2]
    assert batch["num_unique"] == 4
    alone = collate(batch_of(own.tokens_RS, [2]))
    assert torch.equal(batch["targets"], alone["targets"])
    assert batch["num_tokens"] == alone["num_tokens"] == 2


def test_a_batch_is_shifted_by_one_and_rows_end_where_they_end() -> None:
    tokens = np.array([[5, 6, 7, 8], [9, 5, 5, 0], [0, 0, 0, 0]])
    collate = CausalCollator(V)
    collate.pad_multiple = 8
    batch = collate(batch_of(tokens, [3, 2, 0]))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 5, 5], [0, 0, 0]]
    assert batch["targets"].tolist() == [[6, 7, 8], [5, 5, -100], [-100, -100, -100]]
    assert batch["num_tokens"] == 5
    assert batch["num_unique"] == 4
    assert batch["unique_ids"].tolist() == [5, 6, 7, 8, 0, 0, 0, 0]
    assert batch["unique_counts"].tolist() == [2, 1, 1, 1, 0, 0, 0, 0]
    assert batch["unique_inverse"].tolist() == [1, 2, 3, 0, 0, -100, -100, -100, -100]
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    assert all(value.dtype == torch.long for value in tensors)
    assert tokens[1, 3] == 0  # the collator changes nothing that it was given


def test_a_target_outside_the_vocabulary_is_never_counted_silently() -> None:
    with pytest.raises(IndexError):
        unique_table(np.array([1, V]), V)


def test_the_collator_travels_to_workers() -> None:
    collator = CausalCollator(V)
    collator.pad_multiple = 4
    batch = pickle.loads(pickle.dumps(collator))(batch_of(np.array([[1, 2, 3]]), [2]))
    assert batch["unique_ids"].tolist() == [2, 3, 0, 0]
