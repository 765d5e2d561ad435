"""How many bytes tokens stand for: against the text itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from headless.data.bpe import train_tokenizer
from headless.data.prepare import prepare
from headless.data.stream import open_dataset
from headless.data.tokenizer import (
    as_fast_tokenizer,
    token_bytes,
    validation_bytes,
)

TEXTS = [
    "A café: naïve?  Two blanks,\ttabs\n\nand lines. ",
    "日本語のテキストと😀, mixed <|endoftext|> up",
]


def test_byte_level_tokens_are_counted_exactly() -> None:
    tokenizer = as_fast_tokenizer(train_tokenizer(TEXTS * 3, 300))
    tokenizer.add_tokens(["日本語"])
    table_V = token_bytes(tokenizer, len(tokenizer))
    for text in TEXTS:
        tokenizer.backend_tokenizer.encode_special_tokens = True
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert table_V[ids].sum() == len(text.encode())
    assert table_V[tokenizer.eos_token_id] == 0


def test_the_scale_of_byte_level_is_one(dataset: Path) -> None:
    data = open_dataset(dataset)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(data.tokenizer_path)
    table_V = validation_bytes(data, tokenizer)
    assert np.array_equal(table_V, token_bytes(tokenizer, data.manifest.vocab_size))
    found = table_V[data.split("validation")[:]].sum()
    assert found == data.manifest.splits["validation"]["bytes"]


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - not a password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def test_added_tokens_that_are_spelled_as_the_models_own() -> None:
    """Runs of blanks and single bytes, which some families list once more."""
    backend = _metaspace()
    backend.train_from_iterator(["a  b\n"], trainers.BpeTrainer(show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_tokens(["▁▁", "<0x0A>", "word"])
    table_V = token_bytes(tokenizer, len(tokenizer))
    ids = tokenizer.convert_tokens_to_ids(["▁▁", "<0x0A>", "word"])
    assert table_V[ids].tolist() == [2, 1, 4]


@pytest.mark.parametrize(
    ("make", "trainer"),
    [(_word_piece, trainers.WordPieceTrainer), (_metaspace, trainers.BpeTrainer)],
)
def test_other_tokenizers_sum_up_to_the_text(make: Any, trainer: Any, tmp_path: Path) -> None:
    """Scaled: the whole split has its own bytes, and what is near the text was counted before."""
    texts = [f"The {x} king sees the Queen, and the {x} crown." for x in ("old", "lost", "gold")]
    backend = make()
    backend.train_from_iterator(
        texts * 4,
        trainer(vocab_size=120, special_tokens=["[UNK]", "[SEP]"], show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]")  # noqa: S106
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "text").mkdir()
    for i, text in enumerate(texts * 4):
        (tmp_path / "text" / f"{i:02d}.txt").write_text(text)
    prepare(
        [str(tmp_path / "text")],
        tmp_path / "data",
        tokenizer=str(tmp_path / "tokenizer"),
        validation_fraction=0.3,
    )
    data = open_dataset(tmp_path / "data")
    tokens = data.split("validation")[:]
    true = data.manifest.splits["validation"]["bytes"]
    assert validation_bytes(data, tokenizer)[tokens].sum() == pytest.approx(true, rel=1e-12)
    assert token_bytes(tokenizer, len(tokenizer))[tokens].sum() == pytest.approx(true, rel=0.1)
