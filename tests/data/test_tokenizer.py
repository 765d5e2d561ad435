"""Tokenizers: trained ones write any text and are reproducible, bad ones are told."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from headless.data.bpe import END_OF_TEXT, LONGEST_WORD, train_tokenizer
from headless.data.tokenizer import (
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    loads_plainly,
    loses_nothing,
    open_tokenizer,
    same_ids,
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
    with pytest.raises(HeadlessError, match="vocab_size 99999999999 is too large"):
        train_tokenizer(TEXTS, 99_999_999_999)
    fast = as_fast_tokenizer(TRAINED)
    assert fast.eos_token == fast.bos_token == fast.pad_token == END_OF_TEXT
    assert end_of_document(fast) == TRAINED.token_to_id(END_OF_TEXT)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert train_tokenizer(TEXTS, 300).to_str() == TRAINED.to_str()


def test_words_without_end_are_learnt_from_in_pieces_and_others_as_they_are() -> None:
    """Training takes time quadratic in the length of a word: hours for a few megabytes of DNA."""
    tokenizer = train_tokenizer(["a" * 20_000, *TEXTS], 300)
    assert max(map(len, tokenizer.get_vocab())) <= LONGEST_WORD
    for text in ("a" * 5000, *TEXTS):  # a text is encoded whole
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    assert plain.to_str() == TRAINED.to_str()


def test_existing_tokenizers_from_a_directory_or_a_file(tmp_path: Path) -> None:
    as_fast_tokenizer(TRAINED).save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(str(source))
        assert loaded.eos_token == END_OF_TEXT
        assert loaded("the king").input_ids == TRAINED.encode("the king").ids
        assert loaded.get_vocab() == TRAINED.get_vocab()


def write_own_digits(directory: Path, **config: str) -> Tokenizer:
    """A tokenizer that reads digits one by one, beside a config that may name another class."""
    tokenizer = train_tokenizer(["the king of 1234 and of 1999 and the queen in 1812 " * 20], 300)
    as_fast_tokenizer(tokenizer).save_pretrained(directory)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return tokenizer


PROBE = "In 1812 and 1999: the KING's  queen\n\tÜnïcödé 日本 🙂"


def test_the_ids_are_those_of_tokenizer_json_whatever_class_is_named(tmp_path: Path) -> None:
    truth = write_own_digits(tmp_path / "a", tokenizer_class="GPT2TokenizerFast")
    loaded = load_tokenizer(str(tmp_path / "a"))
    assert loaded.encode(PROBE) == truth.encode(PROBE).ids
    assert (loaded.eos_token, loaded.pad_token) == (END_OF_TEXT, END_OF_TEXT)
    loaded.save_pretrained(tmp_path / "again")
    for again in (load_tokenizer, AutoTokenizer.from_pretrained):
        assert again(str(tmp_path / "again")).encode(PROBE) == truth.encode(PROBE).ids
    assert loads_plainly(tmp_path / "again")
    assert not loads_plainly(tmp_path / "a")
    assert same_ids(loaded, load_tokenizer(str(tmp_path / "again")))
    (tmp_path / "again/config.json").write_text('{"model_type": "qwen2"}')  # takes its own class
    assert not loads_plainly(tmp_path / "again")
    assert load_tokenizer(str(tmp_path / "again")).encode(PROBE) == truth.encode(PROBE).ids


def test_a_file_of_an_older_library_is_not_taken_for_another_pipeline(tmp_path: Path) -> None:
    """It leaves out what has a default now; the class that is named stays."""
    as_fast_tokenizer(TRAINED).save_pretrained(tmp_path)
    file, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"tokenizer_class": "GPT2TokenizerFast"}))
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    content = json.loads(file.read_text())
    del content["model"]["ignore_merges"], content["model"]["byte_fallback"]
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    file.write_text(json.dumps(content))
    assert type(load_tokenizer(str(tmp_path))) is type(AutoTokenizer.from_pretrained(tmp_path))


def test_a_class_that_is_passed_over_leaves_its_inputs(tmp_path: Path) -> None:
    """A BERT is told which text of a pair a token is of."""
    write_own_digits(tmp_path, tokenizer_class="BertTokenizerFast")
    loaded = load_tokenizer(str(tmp_path))
    assert "token_type_ids" in loaded.model_input_names
    assert (
        loaded.encode(PROBE)
        == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(PROBE).ids
    )


def test_special_tokens_that_only_the_class_names_are_kept(tmp_path: Path) -> None:
    truth = write_own_digits(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2TokenizerFast"}')
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.eos_token == END_OF_TEXT
    assert loaded.encode(PROBE) == truth.encode(PROBE).ids


def test_equal_vocabularies_are_not_equal_ids(tmp_path: Path) -> None:
    write_own_digits(tmp_path)
    digits = load_tokenizer(str(tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert digits.get_vocab() == as_fast_tokenizer(tokenizer).get_vocab()
    assert not same_ids(digits, as_fast_tokenizer(tokenizer))


def test_the_name_of_a_special_token_in_a_text_is_text(tmp_path: Path) -> None:
    as_fast_tokenizer(TRAINED).save_pretrained(tmp_path)
    for loaded in (open_tokenizer(str(tmp_path)), load_tokenizer(str(tmp_path / "tokenizer.json"))):
        ids = loaded.encode(f"the {END_OF_TEXT} king")
        assert loaded.eos_token_id not in ids
        assert loaded.decode(ids) == f"the {END_OF_TEXT} king"
        as_token = loaded.encode(f"the {END_OF_TEXT} king", split_special_tokens=False)
        assert loaded.eos_token_id in as_token
        loaded.save_pretrained(tmp_path / "copy")
        plain = AutoTokenizer.from_pretrained(tmp_path / "copy")  # others' habit is theirs
        assert plain.eos_token_id in plain.encode(f"the {END_OF_TEXT} king")


def test_which_tokenizers_lose_nothing_by_construction() -> None:
    assert loses_nothing(TRAINED)  # see test_any_text_round_trips
    for change in (
        lambda t: setattr(t, "normalizer", normalizers.NFKC()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda t: setattr(t, "decoder", decoders.Metaspace()),
        lambda t: setattr(t, "model", models.BPE({"a": 0, "b": 1}, [])),
        lambda t: setattr(t, "model", models.WordLevel({"a": 0}, "a")),
        lambda t: t.add_tokens([AddedToken("king", lstrip=True)]),
    ):
        tokenizer = Tokenizer.from_str(TRAINED.to_str())
        change(tokenizer)
        assert not loses_nothing(tokenizer)


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
