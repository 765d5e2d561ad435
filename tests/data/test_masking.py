"""Masks: how many, of what kind, the same for whoever asks, and labels from the clean text."""

import pickle
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headless.data.blocks import IGNORED, BatchBlocks, Blocks
from headless.data.bpe import train_tokenizer
from headless.data.collate import IGNORE_INDEX
from headless.data.datamodule import TokenDataModule
from headless.data.masking import MaskedCollator
from headless.data.prepare import prepare
from headless.data.stream import open_dataset
from headless.data.tokenizer import (
    add_mask_token,
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    special_ids,
)
from headless.errors import HeadlessError

V, EOS, MASK, HOLE = 50, 0, 1, 2  # HOLE: an id that no token has
ORDINARY = np.arange(3, V)


def collator(**options: object) -> MaskedCollator:
    return MaskedCollator(V, MASK, ORDINARY, **options)  # type: ignore[arg-type]


def blocks(count: int, length: int, epoch: int = 0, first: int = 0, eos: float = 0.05) -> Blocks:
    """Random text, the same for the same block."""
    indices = np.arange(first, first + count)
    rows = []
    for index in indices:
        draw = np.random.default_rng(index)
        row = draw.integers(3, V, length)
        row[draw.random(length) < eos] = EOS
        rows.append(row)
    return Blocks(epoch, indices, np.array(rows).reshape(count, length), np.full(count, length))


def nothing(length: int) -> Blocks:
    return Blocks(0, np.zeros(0, np.int64), np.zeros((0, length), np.int64), np.zeros(0, np.int64))


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = shares * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@given(
    count=st.integers(1, 6),
    length=st.integers(1, 40),
    probability=st.sampled_from([0.07, 0.15, 0.5, 1.0]),
    eos=st.sampled_from([0.0, 0.3, 1.0]),
    epoch=st.integers(0, 3),
)
def test_every_example_is_what_it_must_be(
    count: int, length: int, probability: float, eos: float, epoch: int
) -> None:
    read = blocks(count, length, epoch, eos=eos)
    before = read.tokens_RS.copy()
    made = collator(mask_probability=probability).examples(read)
    assert np.array_equal(read.tokens_RS, before)  # nothing that it was given is changed
    k = min(length, int(np.ceil(round(probability * length, 6))))
    assert made.targets_RK.shape == made.positions_RK.shape == (count, k)
    for row in range(count):
        clean, corrupt = before[row], made.inputs_RT[row]
        counts = made.targets_RK[row] != IGNORE_INDEX
        chosen = made.positions_RK[row][counts]
        assert counts.sum() == min(k, (clean != EOS).sum())  # exactly so many
        assert len(set(chosen)) == len(chosen)
        assert np.array_equal(made.targets_RK[row][counts], clean[chosen])  # clean labels
        assert (clean[chosen] != EOS).all()
        untouched = np.setdiff1d(np.arange(length), chosen)
        assert np.array_equal(corrupt[untouched], clean[untouched])
        assert np.isin(corrupt[chosen], [MASK, *ORDINARY]).all()


def test_statistics_over_many_blocks() -> None:
    """Chi-square at 1 - 1e-6: positions and kinds are what they should be, and independent."""
    length, count = 32, 20_000
    read = blocks(1, length, eos=0.0)
    tokens = np.tile(np.arange(3, 3 + length), (count, 1))  # position p holds the token p + 3
    read = Blocks(0, np.arange(count), tokens, np.full(count, length))
    made = collator().examples(read)
    assert made.targets_RK.shape == (count, 5)
    positions = made.positions_RK
    corrupt = np.take_along_axis(made.inputs_RT, positions, axis=1)
    chosen = np.bincount(positions.ravel(), minlength=length)
    assert chi_square(chosen, np.full(length, 1 / length)) < 100  # 31 degrees of freedom
    kept_by_chance = 0.1 / len(ORDINARY)
    kinds = [corrupt == MASK, corrupt == made.targets_RK]
    kinds.append(~kinds[0] & ~kinds[1])
    shares = np.array([0.8, 0.1 + kept_by_chance, 0.1 - kept_by_chance])
    assert chi_square(np.array([kind.sum() for kind in kinds]), shares) < 28
    for position in (0, 13, 31):  # the kind does not depend on where
        here = np.array([(kind & (positions == position)).sum() for kind in kinds])
        assert chi_square(here, shares) < 28
    drawn = np.bincount(corrupt[kinds[2]], minlength=V)
    assert drawn[[EOS, MASK, HOLE]].sum() == 0  # nothing special is ever drawn
    assert chi_square(drawn[35:], np.full(15, 1 / 15)) < 60  # tokens that no position holds
    pairs = np.zeros((length, length))
    for i, j in combinations(range(5), 2):
        np.add.at(pairs, (positions[:, i], positions[:, j]), 1)
    upper = pairs[np.triu_indices(length, 1)]
    assert chi_square(upper, np.full(len(upper), 1 / len(upper))) < 660  # 495 degrees of freedom


def test_masks_belong_to_seed_epoch_and_block_alone() -> None:
    length = 64

    def masks(first: int, count: int, epoch: int, seed: int = 7) -> np.ndarray:
        return collator(seed=seed).examples(blocks(count, length, epoch, first)).inputs_RT

    together = masks(0, 12, 1)
    assert np.array_equal(together[5:9], masks(5, 4, 1))
    sent = pickle.loads(pickle.dumps(collator(seed=7)))  # as a worker gets it
    np.random.seed(1)
    assert np.array_equal(sent.examples(blocks(12, length, 1)).inputs_RT, together)
    for other in (masks(0, 12, 2), masks(0, 12, 1, seed=8), masks(0, 12, 7, seed=1)):
        assert (other != together).any(axis=1).all()
    same_text = Blocks(1, np.arange(12), np.full((12, length), 9), np.full(12, length))
    assert len({row.tobytes() for row in collator().examples(same_text).inputs_RT}) == 12


def test_masks_never_change_between_versions() -> None:
    """A resumed run must mask what the interrupted one would have: these numbers are a promise."""
    read = Blocks(3, np.array([11]), np.arange(3, 33)[None], np.array([30]))
    made = collator(seed=5).examples(read)
    assert made.positions_RK.tolist() == [[4, 5, 16, 20, 24]]
    assert made.inputs_RT[0, made.positions_RK[0]].tolist() == [1, 1, 1, 1, 1]


def test_batches_have_static_shapes_and_rows_that_fit() -> None:
    length = 20
    own = blocks(3, length)
    own.tokens_RS[1, :18] = EOS  # two eligible positions for three targets
    own.tokens_RS[2], own.lengths_R[2], own.indices_R[2] = EOS, 0, IGNORED
    others = blocks(4, length, first=10)
    collate = collator()
    collate.pad_multiple = 16
    batch = collate(BatchBlocks(own, others))
    assert batch["input_ids"].shape == (3, length)
    assert batch["rows"].shape == batch["targets"].shape == batch["unique_inverse"].shape == (9,)
    valid = batch["targets"] != IGNORE_INDEX
    assert valid.view(3, 3).sum(dim=1).tolist() == [3, 2, 0]
    clean = torch.from_numpy(own.tokens_RS).flatten()
    assert torch.equal(clean[batch["rows"][valid]], batch["targets"][valid])
    assert (batch["rows"][~valid] == 0).all()
    ids = batch["unique_ids"]
    assert torch.equal(ids[batch["unique_inverse"][valid]], batch["targets"][valid])
    elsewhere = collate.examples(others).targets_RK
    counts = np.bincount([*batch["targets"][valid], *elsewhere.ravel()], minlength=V)
    assert batch["unique_counts"][: batch["num_unique"]].tolist() == counts[counts > 0].tolist()
    assert batch["num_tokens"] == 2 * length
    alone = collate(BatchBlocks(own, nothing(length)))
    assert alone["num_unique"] == len(set(batch["targets"][valid].tolist()))
    assert torch.equal(alone["input_ids"], batch["input_ids"])


def test_a_sequence_that_ends_early_is_masked_where_it_is() -> None:
    read = blocks(1, 40, eos=0.0)
    read.lengths_R[0] = 4
    made = collator(mask_probability=0.5).examples(read)
    assert sorted(made.positions_RK[made.targets_RK != IGNORE_INDEX].tolist()) == [0, 1, 2, 3]


# -- a dataset with a mask token ------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked_dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("masked") / "data"
    options = {"vocab_size": 320, "validation_fraction": 0.1, "mask_token": "[MASK]"}
    prepare([str(text_files)], output, **options)  # type: ignore[arg-type]
    return output


def test_the_mask_token_is_counted_and_stands_in_no_text(masked_dataset: Path) -> None:
    data = TokenDataModule(masked_dataset, 16, task="masked")
    assert data.vocab_size == 320 == len(data.tokenizer)
    assert data.tokenizer.mask_token == "[MASK]"
    assert data.mask_token_id == 319
    opened = open_dataset(masked_dataset)
    counts = opened.unigram_counts
    assert counts[319] == 0
    assert not (opened.split("train")[:] == 319).any()
    # A model is never asked for the end of a document, but a causal one is.
    causal = TokenDataModule(masked_dataset, 16)
    assert causal.unigram_counts[data.eos_token_id] == counts[data.eos_token_id] > 0
    assert data.unigram_counts[data.eos_token_id] == 0
    counts[data.eos_token_id] = 0
    assert torch.equal(data.unigram_counts, counts)


def test_the_mask_takes_the_blank_before_it_along(masked_dataset: Path) -> None:
    """So that the model is asked for ' king', as in the text, and not for 'king'."""
    tokenizer = TokenDataModule(masked_dataset, 16).tokenizer
    ids = tokenizer.encode("the [MASK]", add_special_tokens=False, split_special_tokens=False)
    assert ids == [*tokenizer.encode("the"), tokenizer.mask_token_id]


def test_existing_tokenizers_get_a_mask_token_unless_they_have_one(tmp_path: Path) -> None:
    trained = train_tokenizer(["the king of the north and the queen " * 20], 300)
    as_fast_tokenizer(trained).save_pretrained(tmp_path / "a")
    fast = load_tokenizer(str(tmp_path / "a"))
    for token in ("the", "<|endoftext|>"):
        with pytest.raises(HeadlessError, match="token of another use: choose another"):
            add_mask_token(fast, token)
    add_mask_token(fast, "[MASK]")
    assert fast.mask_token_id == trained.get_vocab_size()
    assert special_ids(fast) == {end_of_document(fast), fast.mask_token_id}
    fast.save_pretrained(tmp_path / "b")
    again = load_tokenizer(str(tmp_path / "b"))
    add_mask_token(again, "<mask>")
    assert again.mask_token == "[MASK]"
    assert again.get_vocab() == fast.get_vocab()


def test_masks_without_a_mask_token_are_told(dataset: Path, masked_dataset: Path) -> None:
    with pytest.raises(HeadlessError, match=r"no mask token.*headless prepare … --mask_token"):
        TokenDataModule(dataset, 16, task="masked")
    for probability in (0.0, 1.5):
        with pytest.raises(HeadlessError, match="mask_probability must be in"):
            TokenDataModule(masked_dataset, 16, task="masked", mask_probability=probability)


def test_validation_masks_are_the_same_for_every_seed(masked_dataset: Path) -> None:
    runs = [TokenDataModule(masked_dataset, 16, seed=seed, task="masked") for seed in (1, 2)]
    for run in runs:
        run.trainer = SimpleNamespace(global_rank=0, world_size=1)  # type: ignore[assignment]
    probes = [next(iter(run.val_dataloader()))["input_ids"] for run in runs]
    assert torch.equal(*probes)
    assert (probes[0] == runs[0].mask_token_id).any()
    read = blocks(2, 16)
    trained = [run.collator.examples(read).inputs_RT for run in runs]
    assert not np.array_equal(*trained)
