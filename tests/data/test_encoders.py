"""gigatoken and the tokenizers library make the same of a text, or the library makes all of it."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from headless.data import bpe, documents, encoders
from headless.data.bpe import train_tokenizer
from headless.data.encoders import Encoder, FastEncoder
from headless.data.prepare import prepare

gigatoken = pytest.importorskip("gigatoken")
SAID = "headless: the tokenizers library encodes: "
ODD = [
    "<|endoftext|>",
    "  \n\n\t",
    "naïve",
    "日本語の文",
    "🙂👍🏽",
    "don't",
    "1,234.5",
    "\u00a0",
    "x²",
]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of many words, short ones and one that is too long to be compared whole."""
    directory = tmp_path_factory.mktemp("text")
    for i in range(300):
        draw = random.Random(i)
        words = ["".join(draw.choices("abcdefg", k=draw.randint(1, 9))) for _ in range(60)]
        text = " ".join(draw.choices(words + ODD, k=5000 if i == 7 else 100))
        (directory / f"{i:03d}.txt").write_text(text)
    return directory


def without_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)


def contents(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def learns(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each training from now on is gigatoken's."""
    said: list[bool] = []
    write = bpe._write

    def noted(*arguments: Any) -> bool:
        said.append(write(*arguments))
        return said[-1]

    monkeypatch.setattr(bpe, "_write", noted)
    return said


def test_both_prepare_the_same_files(
    varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documents, "BATCH_CHARACTERS", 20_000)  # many batches
    monkeypatch.setattr(encoders, "RENEWED", 50_000)  # and several encoders
    by_gigatoken = learns(monkeypatch)
    fast = prepare([str(varied)], tmp_path / "fast", vocab_size=600, progress=True)
    assert by_gigatoken == [True]
    printed = capfd.readouterr()
    assert printed.out == ""  # gigatoken tells of its threads
    assert "hread" not in printed.err
    assert SAID not in printed.err
    without_gigatoken(monkeypatch)
    prepare([str(varied)], tmp_path / "plain", vocab_size=600, progress=True)
    assert f"{SAID}gigatoken, which is many times faster, is not in" in capfd.readouterr().err
    assert by_gigatoken == [True]
    assert contents(tmp_path / "fast") == contents(tmp_path / "plain")
    assert fast.manifest.splits["train"]["documents"] > 250


@pytest.mark.parametrize("kind", ["few words", "a long word", "a small vocabulary"])
def test_merges_are_the_same_whoever_learns_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefghé国🙂  \n.'", k=2000)) for _ in range(10)]
    size = 1000
    if kind == "few words":
        texts = ["the king of the north " * 20]
    elif kind == "a long word":
        texts[3] += "ab" * 600
    else:
        size = 300
    by_gigatoken = learns(monkeypatch)
    made = train_tokenizer(iter(texts), size).to_str()
    assert by_gigatoken == [kind == "a small vocabulary"]
    without_gigatoken(monkeypatch)
    assert made == train_tokenizer(texts, size).to_str()


@pytest.mark.parametrize("fault", ["has other ids for ", "fails (out of luck)"])
def test_a_fault_is_found_wherever_it_begins_and_all_is_encoded_again(
    varied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    monkeypatch.setattr(documents, "BATCH_CHARACTERS", 20_000)
    encode, calls = gigatoken.Tokenizer.encode_batch, []

    def wrong_later(self: Any, texts: list[str]) -> Any:
        calls.append(len(texts))
        if len(calls) <= 4 or len(texts) == 1:
            return encode(self, texts)
        if "fails" in fault:
            raise RuntimeError("out of luck")
        return encode(self, texts) + 1

    prepare([str(varied)], tmp_path / "right", vocab_size=600)
    monkeypatch.setattr(gigatoken.Tokenizer, "encode_batch", wrong_later)
    prepare([str(varied)], tmp_path / "wrong", vocab_size=600, progress=True)
    assert f"{SAID}gigatoken {fault}" in capfd.readouterr().err
    assert contents(tmp_path / "right") == contents(tmp_path / "wrong")


def test_a_tokenizer_that_gigatoken_does_not_know_is_left_to_the_library(
    lossy_tokenizer: Path, varied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare([str(varied)], tmp_path / "data", tokenizer=str(lossy_tokenizer), progress=True)
    assert f"{SAID}gigatoken does not take this tokenizer (Unsupported" in capfd.readouterr().err


@pytest.mark.parametrize("special", [True, False])
def test_added_tokens_in_a_text(special: bool) -> None:
    """The name of a special one is text, of another it is the token."""
    tokenizer = train_tokenizer(["the king of the north " * 20], 300)
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(["<think>"])
    texts = ["the <think> king", "<think><|endoftext|>", " ".join(ODD)]
    fast, plain = FastEncoder(tokenizer)(texts), Encoder(tokenizer)(texts)
    assert fast.ids.tolist() == plain.ids.tolist()
    assert fast.lengths.tolist() == plain.lengths.tolist()
    assert (tokenizer.token_to_id("<think>") in fast.ids) == (not special)


def grown(batches: int) -> float:
    """Megabytes that an encoder's process takes more for words that never come again."""
    tokenizer = train_tokenizer(["the king of the north " * 20], 300)
    encoder, generator = FastEncoder(tokenizer), np.random.default_rng(0)
    sizes = []
    for _ in range(batches):
        letters = generator.integers(97, 123, size=1_000_000, dtype=np.uint8)
        letters[::9] = 32
        encoder([letters.tobytes().decode()])
        sizes.append(psutil.Process().memory_info().rss / 1e6)
    return sizes[-1] - sizes[batches // 3]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "RENEWED", 1_000_000)
    assert grown(24) < 50  # more than 100 where the caches are kept
