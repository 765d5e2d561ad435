"""The anchors, against counting one pair after the other."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from headless.data import anchors
from headless.data.anchors import anchors_of, count_pairs
from headless.data.stream import TokenStream, open_dataset
from headless.data.tokenizer import load_tokenizer


def quiet(*report: object) -> None:
    pass


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "CHUNK", 100)
    monkeypatch.setattr(anchors, "PIECE", 16)


@pytest.mark.usefixtures("small_chunks")
def test_against_plain_counting(dataset: Path) -> None:
    prepared = open_dataset(dataset)
    tokenizer = load_tokenizer(str(prepared.tokenizer_path))
    found = anchors_of(prepared, tokenizer, quiet)
    assert found is not None
    assert found == prepared.manifest.anchors  # however large the chunks
    train, text = (prepared.split(name)[:].tolist() for name in ("train", "validation"))
    size = prepared.manifest.vocab_size
    count, pairs, followed = Counter(train), Counter(pairwise(train)), Counter(train[:-1])

    def unigram(b: int, without: int = 0) -> float:
        return (count[b] - without + 1) / (len(train) - without + size)

    def bigram(a: int, b: int, weight: float, without: int = 0) -> float:
        if followed[a] == without:
            return unigram(b, without)
        first = (pairs[a, b] - without) / (followed[a] - without)
        return weight * first + (1 - weight) * unigram(b, without)

    def held_out(weight: float) -> float:
        """The likelihood that the weight makes largest; its two cases keep it off 0 and 1."""
        own = sum(math.log(bigram(a, b, weight, 1)) for a, b in pairwise(train) if followed[a] > 1)
        return own + math.log(weight) + math.log(1 - weight)

    weight = found["bigram_weight"]
    assert held_out(weight) > max(held_out(weight - 1e-3), held_out(weight + 1e-3))
    nll = {
        "uniform": math.log(size),
        "unigram": -np.mean([math.log(unigram(b)) for b in text[1:]]),
        "bigram": -np.mean([math.log(bigram(a, b, weight)) for a, b in pairwise(text)]),
    }
    assert found["nll"] == pytest.approx(nll, abs=2e-6)
    assert nll["bigram"] < nll["unigram"] < nll["uniform"]
    size = prepared.manifest.splits["validation"]["bytes"]
    size -= len(tokenizer.decode(text[:1]).encode())  # nothing predicts it
    for name, nats in nll.items():
        bits = nats * (len(text) - 1) / math.log(2) / size
        assert found["bits_per_byte"][name] == pytest.approx(bits, abs=2e-6)
    assert found["targets"] == len(text) - 1


@pytest.mark.usefixtures("small_chunks")
def test_of_a_long_text_a_part_is_scored_and_the_whole_is_counted(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = open_dataset(dataset)
    whole = prepared.manifest.anchors
    monkeypatch.setattr(anchors, "MOST", 200)
    monkeypatch.setattr(anchors, "MOST_HELD_OUT", 300)
    part = anchors_of(prepared, load_tokenizer(str(prepared.tokenizer_path)), quiet)
    assert whole is not None
    assert part is not None
    assert 100 < part["targets"] <= 200 < whole["targets"]
    assert part["nll"] == pytest.approx(whole["nll"], rel=0.1)
    assert part["nll"] != whole["nll"]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("vocab_size", [7, 100_000])
def test_pairs_are_counted_across_chunks(tmp_path: Path, vocab_size: int) -> None:
    """Also where a pair is no number of 32 bits."""
    tokens = np.random.default_rng(0).integers(0, 7, size=1001).astype("<u4") * (vocab_size // 7)
    tokens.tofile(tmp_path / "tokens")
    expected = Counter(pairwise(tokens.tolist()))
    asked = sorted({*expected, (0, vocab_size - 1), (vocab_size - 1, vocab_size - 1)})[1:]
    keys = np.array([a * vocab_size + b for a, b in asked])
    found = count_pairs(TokenStream(tmp_path / "tokens", "<u4"), keys, vocab_size, quiet)
    assert found.tolist() == [expected[pair] for pair in asked]
