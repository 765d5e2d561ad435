"""Preparing: what the streams are made from, and what happens when something is amiss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from headless.data import documents as documents_module
from headless.data.bpe import train_tokenizer
from headless.data.documents import Documents
from headless.data.encode import encode_documents, write_streams
from headless.data.encoders import Encoder
from headless.data.prepare import prepare
from headless.data.stream import Manifest, open_dataset
from headless.errors import HeadlessError
from headless.files import exclusive

TOKENIZER = train_tokenizer(["the king of the north and the queen of the south " * 20], 300)
ENCODER, EOS = Encoder(TOKENIZER), TOKENIZER.token_to_id("<|endoftext|>")


def write_texts(directory: Path, texts: list[str]) -> Documents:
    """One file a text."""
    directory.mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        (directory / f"{i:03d}.txt").write_text(text)
    return Documents([str(directory)])


@pytest.mark.parametrize("characters", [1, 40, 10**6])
def test_batches_change_nothing(
    tmp_path: Path, characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "BATCH_CHARACTERS", characters)
    texts = [f"the king {i} " * (i % 5 + 1) for i in range(20)]
    batches = list(encode_documents(write_texts(tmp_path, texts), ENCODER, EOS))
    assert len(batches) == {1: 20, 40: len(batches), 10**6: 1}[characters]
    expected = [[*TOKENIZER.encode(text).ids, EOS] for text in texts]
    assert np.concatenate([batch.ids for batch in batches]).tolist() == sum(expected, [])
    lengths = np.concatenate([batch.lengths for batch in batches])
    assert lengths.tolist() == [len(ids) for ids in expected]


def test_the_name_of_a_special_token_inside_a_text_is_text(tmp_path: Path) -> None:
    documents = write_texts(tmp_path, ["the <|endoftext|> king", "queen"])
    ((ids, lengths, exact),) = encode_documents(documents, ENCODER, EOS)
    assert (ids == EOS).sum() == 2
    assert exact.all()
    assert TOKENIZER.decode(ids[: lengths[0] - 1].tolist()) == "the <|endoftext|> king"


def streams(documents: Documents, directory: Path, **changes: Any) -> dict[str, dict[str, int]]:
    """The second pass over three documents, the middle one held out."""
    directory.mkdir(exist_ok=True)
    options = {
        "encoded": encode_documents(documents, ENCODER, EOS),
        "held_out": np.array([False, True, False]),
        "sizes": np.array([8, 9, 5]),
        "vocab_size": 300,
        "directory": directory,
        "report": lambda *report: None,
    }
    return write_streams(**{**options, **changes}).splits


def test_documents_go_to_their_side(tmp_path: Path) -> None:
    texts = ["the king", "the queen", "south"]
    numbers = streams(write_texts(tmp_path / "text", texts), tmp_path / "out")
    first, held_out, last = ([*TOKENIZER.encode(text).ids, EOS] for text in texts)
    train = np.fromfile(tmp_path / "out" / "train.bin", "<u2").tolist()
    assert train == first + last
    assert np.fromfile(tmp_path / "out" / "validation.bin", "<u2").tolist() == held_out
    counts = np.load(tmp_path / "out" / "unigram_counts.npy")
    assert counts.tolist() == np.bincount(train, minlength=300).tolist()
    assert np.load(tmp_path / "out" / "train.documents.npy").tolist() == [0, len(first)]
    assert numbers["train"] == {"documents": 2, "tokens": len(train), "bytes": 13}


def test_text_that_changes_meanwhile_and_tokens_out_of_range_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    texts = ["the king", "the queen", "south"]
    with pytest.raises(HeadlessError, match="its vocabulary has 200"):
        streams(write_texts(tmp_path / "three", texts), out, vocab_size=200)
    with pytest.raises(HeadlessError, match="the text grew while it was read"):
        streams(write_texts(tmp_path / "four", [*texts, "more"]), out)
    with pytest.raises(HeadlessError, match="the text shrank while it was read"):
        streams(write_texts(tmp_path / "two", texts[:2]), out)


def test_only_training_documents_teach_the_tokenizer(tmp_path: Path) -> None:
    """A word that only stands in the held-out documents is no token."""
    words = [f"{a}{b}{a}{b}{a}{b}" for a in "bcdfghjklm" for b in "aeiou"]
    texts = [f"{word} " * 400 for word in words]
    write_texts(tmp_path / "text", texts)
    output = tmp_path / "data"
    prepare([str(tmp_path / "text")], output, vocab_size=1000, validation_fraction=0.2)
    tokenizer = Tokenizer.from_file(str(output / "tokenizer" / "tokenizer.json"))
    stream, begins = open_dataset(output).split("validation"), open_dataset(output).documents
    firsts = {tokenizer.decode(stream[b : b + 40].tolist())[:6] for b in begins("validation")}
    assert len(firsts) == 10
    learnt = {word for word in words if f"Ġ{word}" in tokenizer.get_vocab()}
    assert learnt == set(words) - firsts


def test_an_existing_tokenizer_is_taken_over_whole(
    dataset: Path, text_files: Path, tmp_path: Path
) -> None:
    source = dataset / "tokenizer"
    manifest = prepare(
        [str(text_files)], tmp_path / "again", tokenizer=str(source), seed=1
    ).manifest
    assert manifest.tokenizer_sha256 == Manifest.read(dataset).tokenizer_sha256
    assert manifest.vocab_size == 320
    assert manifest.splits != Manifest.read(dataset).splits  # another seed holds out other texts


@pytest.mark.parametrize(("size", "least", "most"), [(6000, 1000, 15_000), (1, 400, 1000)])
def test_a_sample_trains_the_tokenizer_of_a_large_corpus(
    size: int, least: int, most: int, tmp_path: Path
) -> None:
    write_texts(tmp_path / "text", [f"number {i} of many words " * 20 for i in range(60)])
    heard: dict[str, int] = {}

    def report(phase: str, done: int, total: int) -> None:
        heard[phase] = done

    manifest = prepare(
        [str(tmp_path / "text")],
        tmp_path / "data",
        vocab_size=270,
        tokenizer_bytes=size,
        progress=report,
    ).manifest
    read = sum(numbers["bytes"] for numbers in manifest.splits.values())
    assert heard["reading"] == heard["tokenising"] == read > 25_000
    assert least < heard["training the tokenizer"] < most


def test_overwriting_replaces_datasets_only(text_files: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(HeadlessError, match="mine is no prepared dataset"):
            prepare([str(text_files)], output, vocab_size=300, overwrite=overwrite)
    assert (output / "thesis.tex").read_text() == "years of work"
    output = tmp_path / "data"
    prepare([str(text_files)], output, vocab_size=300)
    with pytest.raises(HeadlessError, match="data exists: .* --overwrite true"):
        prepare([str(text_files)], output, vocab_size=310)
    prepare([str(text_files)], output, vocab_size=310, overwrite=True)
    assert open_dataset(output).manifest.vocab_size == 310
    with pytest.raises(HeadlessError, match="there is no"):
        prepare(["nowhere.txt"], output, vocab_size=300, overwrite=True)
    assert open_dataset(output).manifest.vocab_size == 310
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine"]


def test_two_that_write_to_one_output_exclude_each_other(text_files: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    with exclusive(output), pytest.raises(HeadlessError, match="is being written to by process"):
        prepare([str(text_files)], output, vocab_size=300)
    (tmp_path / ".data.partial-0123").mkdir()  # of one that was killed
    prepare([str(text_files)], output, vocab_size=300)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_share_of_text_that_its_tokens_do_not_give_back_is_kept(
    dataset: Path, lossy_tokenizer: Path, tmp_path: Path
) -> None:
    assert Manifest.read(dataset).inexact_share == 0.0  # bytes lose nothing
    assert Manifest.read(dataset).caution is None
    texts = ["the king", "The king", "the queen", "king  the", "the king the"]
    write_texts(tmp_path / "text", texts)
    manifest = prepare(
        [str(tmp_path / "text")],
        tmp_path / "data",
        tokenizer=str(lossy_tokenizer),
        validation_fraction=0.2,
    ).manifest
    lost = sum(map(len, texts[1:4]))  # case, an unknown word, a blank
    assert manifest.inexact_share == lost / sum(map(len, texts))
    assert Manifest.read(tmp_path / "data") == manifest
    assert "bits per byte" in str(manifest.caution)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_bad_options_are_told(text_files: Path, tmp_path: Path, fraction: float) -> None:
    with pytest.raises(HeadlessError, match="validation_fraction must be in"):
        prepare([str(text_files)], tmp_path / "data", validation_fraction=fraction)
    with pytest.raises(HeadlessError, match="num_workers must be at least 1"):
        prepare([str(text_files)], tmp_path / "data", num_workers=0)
    assert not list(tmp_path.iterdir())
