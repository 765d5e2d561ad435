"""Tokenizers: trained ones write any text and are reproducible, bad ones are told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from headless.data.tokenizer import (
    END_OF_TEXT,
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    train_tokenizer,
)
from headless.errors import HeadlessError

TEXTS = ["the king of the north and the queen of the south " * 20, "Ünïcödé 日本語 " * 20]
TRAINED = train_tokenizer(TEXTS, 300)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text).ids, skip_special_tokens=False) == text


def test_the_vocabulary_has_the_size_asked_for_and_every_byte() -> None:
    assert TRAINED.get_vocab_size() == 300
    assert len(train_tokenizer(["ab"], 1000).get_vocab()) == 258  # "ab" has one pair to merge
    with pytest.raises(HeadlessError, match="vocab_size 256 is too small"):
        train_tokenizer(TEXTS, 256)
    fast = as_fast_tokenizer(TRAINED)
    assert fast.eos_token == fast.bos_token == fast.pad_token == END_OF_TEXT
    assert end_of_document(fast) == TRAINED.token_to_id(END_OF_TEXT)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert train_tokenizer(TEXTS, 300).to_str() == TRAINED.to_str()


def test_existing_tokenizers_from_a_directory_or_a_file(tmp_path: Path) -> None:
    as_fast_tokenizer(TRAINED).save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(str(source))
        assert loaded.eos_token == END_OF_TEXT
        assert loaded("the king").input_ids == TRAINED.encode("the king").ids
        assert loaded.get_vocab() == TRAINED.get_vocab()


def test_limits_of_an_existing_tokenizer_do_not_cut_documents(tmp_path: Path) -> None:
    limited = Tokenizer.from_str(TRAINED.to_str())
    limited.enable_truncation(3)
    limited.enable_padding(length=3)
    limited.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert len(loaded.backend_tokenizer.encode(TEXTS[0]).ids) > 10


def test_unusable_tokenizers_are_told(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=TRAINED).save_pretrained(tmp_path / "no_eos")
    with pytest.raises(HeadlessError, match="has no eos_token"):
        load_tokenizer(str(tmp_path / "no_eos"))
    with pytest.raises(HeadlessError, match="no tokenizer can be loaded from"):
        load_tokenizer(str(tmp_path / "missing"))
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(HeadlessError, match=r"no tokenizer can be loaded from .*broken\.json"):
        load_tokenizer(str(tmp_path / "broken.json"))
