"""n-grams against counting one by one, and a model that is a bigram of a planted source."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads import planted, session
from planted import claim, draw_all

from headless.analysis.head import ngrams as module
from headless.analysis.head.ngrams import Grams, ngrams

V = 60


def source(tokens: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """A Markov chain's transitions [V, V], and a text of it."""
    draw = np.random.default_rng(0)
    transitions = draw.dirichlet(np.full(V, 0.1), V) * 0.9 + 0.1 / V
    sums, uniform = transitions.cumsum(axis=1), draw.random(tokens)
    text = np.zeros(tokens, dtype=np.int64)
    for i in range(1, tokens):
        text[i] = np.searchsorted(sums[text[i - 1]], uniform[i]).clip(max=V - 1)
    return transitions, text


TRANSITIONS, TEXT = source()


def chain(logits_VV: np.ndarray) -> Any:
    """A model whose prediction after a token is one row."""
    head_VD = torch.from_numpy(logits_VV.T / V**0.5).float()
    return planted(torch.eye(V), head_VD)


def finding(logits_VV: np.ndarray) -> Any:
    ids_NT = torch.from_numpy(TEXT[:4000].reshape(-1, 40))
    counts_V = torch.from_numpy(np.bincount(TEXT, minlength=V))
    return ngrams(session(chain(logits_VV), ids_NT, counts_V, tokens=TEXT))


def test_a_model_that_is_a_bigram(tmp_path: Path) -> None:
    found = finding(np.log(TRANSITIONS))
    s = found.scalars
    assert s["ngrams/bigram/divergence"] < 0.06  # what counting 40,000 tokens leaves
    assert s["ngrams/unigram/divergence"] > 1
    assert s["ngrams/bigram/divergence_shuffled"] > 1
    assert s["ngrams/model/nll"] == pytest.approx(s["ngrams/bigram/nll"], abs=0.06)
    assert s["ngrams/explained"] > 0.9
    assert s["ngrams/explained_shuffled"] < 0.05
    entropy = -(TRANSITIONS * np.log(TRANSITIONS)).sum(axis=1)
    assert s["ngrams/entropy"] == pytest.approx(entropy[TEXT].mean(), abs=0.1)
    assert s["ngrams/decile/00/nll"] < s["ngrams/decile/00/nll_unigram"] + 0.5
    assert claim(found, "most of the variance")
    assert claim(found, "nearer to longer") is False  # a trigram of it is no better
    draw_all(found, tmp_path)


def test_a_model_that_is_a_unigram() -> None:
    p_V = (np.bincount(TEXT, minlength=V) + 1) / (len(TEXT) + V)
    found = finding(np.log(p_V)[None].repeat(V, axis=0))
    assert found.scalars["ngrams/unigram/divergence"] == pytest.approx(0, abs=1e-5)
    assert found.scalars["ngrams/uniform/divergence"] > 0.03
    assert claim(found, "nearer to longer") is False
    assert found.scalars["ngrams/explained"] == pytest.approx(1, abs=1e-6)


def test_of_uniform_predictions_nothing_is_explained() -> None:
    found = finding(np.zeros((V, V)))
    assert found.scalars["ngrams/uniform/divergence"] == pytest.approx(0, abs=1e-6)
    assert found.scalars["ngrams/model/nll"] == pytest.approx(np.log(V))
    assert claim(found, "most of the variance") is False


def test_counts_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces as in one, also of contexts that the text does not have."""
    monkeypatch.setattr(module, "PIECE", 700)
    text = TEXT[:5000]
    before_N, now_N = np.array([3, text[7], text[99]]), np.array([5, text[8], text[100]])
    p_V = np.full(V, 1 / V)
    grams = Grams.of(text, before_N, now_N, p_V)
    pair_NV, triple_NV = grams.rows(np.arange(3))
    pairs = Counter(zip(text[1:-1], text[2:], strict=True))
    triples = Counter(zip(text[:-2], text[1:-1], text[2:], strict=True))
    w2, w3 = grams.about["bigram_weight"], grams.about["trigram_weight"]
    assert 0.5 < w2 < 1
    assert w3 < 0.5  # of a bigram's text
    assert grams.about["counted"] == len(text) - 2
    for i, (a, b) in enumerate(zip(before_N, now_N, strict=True)):
        two = np.array([pairs[b, c] for c in range(V)])
        three = np.array([triples[a, b, c] for c in range(V)])
        pair_V = w2 * two / two.sum() + (1 - w2) * p_V
        triple_V = w3 * three / three.sum() + (1 - w3) * pair_V if three.any() else pair_V
        np.testing.assert_allclose(pair_NV[i], pair_V)
        np.testing.assert_allclose(triple_NV[i], triple_V)
