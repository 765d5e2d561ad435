"""Merges across blanks: what they keep, what they save, and that nothing is lost."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headless.data import superwords
from headless.data.bpe import train_tokenizer
from headless.data.prepare import prepare
from headless.data.superwords import add_superwords
from headless.data.tokenizer import load_tokenizer, loses_nothing, token_bytes
from headless.errors import HeadlessError

TEXT = Path("LICENSE").read_text()
FIRST = train_tokenizer([TEXT], 800)
SUPER = add_superwords(FIRST, [TEXT], 1200)
VOCABULARY = SUPER.get_vocab()


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example("of the  work,\r\n\n  in 19 78 of the work!!  ")
def test_any_text_round_trips(text: str) -> None:
    assert SUPER.decode(SUPER.encode(text).ids, skip_special_tokens=False) == text
    assert loses_nothing(SUPER)


def test_the_first_tokens_keep_their_ids_and_their_merges() -> None:
    before, after = (json.loads(t.to_str())["model"]["merges"] for t in (FIRST, SUPER))
    assert after[: len(before)] == before
    assert {token: VOCABULARY[token] for token in FIRST.get_vocab()} == FIRST.get_vocab()
    assert sorted(VOCABULARY.values()) == list(range(1200))
    across = [token for token, id in VOCABULARY.items() if id >= 800 and "Ġ" in token[1:]]
    assert len(across) > 200
    assert not [token for token in across if any(c.isdigit() for c in token) or "Ċ" in token]


def test_the_next_merge_is_that_of_the_most_frequent_pair() -> None:
    """Counted in what the tokenizer itself makes of the text."""
    for size in (801, 840):
        grown = add_superwords(FIRST, [TEXT], size)
        last = next(token for token, id in grown.get_vocab().items() if id == size - 1)
        fewer = add_superwords(FIRST, [TEXT], size - 1)
        counts: dict[tuple[str, str], int] = {}
        found = fewer.encode(TEXT)
        pairs = zip(found.tokens, found.tokens[1:], strict=False)
        pieces = zip(found.word_ids, found.word_ids[1:], strict=False)
        previous = None
        for pair, (here, there) in zip(pairs, pieces, strict=True):
            if here == there and not (pair == previous and pair[0] == pair[1]):
                counts[pair] = counts.get(pair, 0) + 1
            previous = pair
        assert counts[next(pair for pair in counts if "".join(pair) == last)] == max(
            counts.values()
        )


def test_it_needs_fewer_tokens_than_as_many_within_words() -> None:
    plain = train_tokenizer([TEXT], 1200)
    number, others = (len(t.encode(TEXT).ids) for t in (SUPER, plain))
    assert number < 0.92 * others


def test_what_spells_a_token_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = {token: chr(superwords.FIRST + id) for token, id in FIRST.get_vocab().items()}
    twice = [(letter["t"], letter["h"]), (letter["Ġthe"], letter["Ġ"]), (letter["a"], letter["Ġ"])]
    monkeypatch.setattr(superwords, "_merges", lambda *_: twice)
    grown: Tokenizer = add_superwords(FIRST, [], 801)
    assert grown.get_vocab_size() == 801
    assert grown.get_vocab()["ĠtheĠ"] == 800


def test_prepare_makes_them(tmp_path: Path) -> None:
    for name, text in (("a", TEXT), ("b", TEXT[::-1]), ("c", TEXT[500:])):
        (tmp_path / f"{name}.txt").write_text(text)
    dataset = prepare(str(tmp_path), tmp_path / "data", 500, superwords_from=450)
    manifest, tokenizer = dataset.manifest, load_tokenizer(str(dataset.tokenizer_path))
    assert (manifest.vocab_size, manifest.inexact_share) == (500, 0.0)
    assert any("Ġ" in token[1:] for token in tokenizer.get_vocab())
    for split in manifest.splits:
        tokens = dataset.split(split).tokens
        bytes_of = token_bytes(tokenizer, manifest.vocab_size)[tokens].sum()
        assert bytes_of == manifest.splits[split]["bytes"]
    for superwords_from, other, words in (
        (500, None, "at least 257 and below vocab_size 500, got 500"),
        (300, str(dataset.tokenizer_path), "leave out tokenizer"),
    ):
        with pytest.raises(HeadlessError, match=words):
            prepare("x", tmp_path / "y", 500, other, superwords_from=superwords_from)
