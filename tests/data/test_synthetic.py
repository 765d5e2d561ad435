"""Synthetic sources: exact numbers against scipy and the whole chain, and what is drawn of them."""

import numpy as np
import pytest
from scipy.stats import entropy

from headless.data.synthetic import Source, bigram, spam, zipf
from headless.errors import HeadlessError

SOURCES = {
    "zipf": zipf(30, exponent=1.2, length=5),
    "bigram": bigram(20, successors=4, length=7, seed=1),
    "spam": spam(12, length=9),
}


def chain_of(source: Source) -> np.ndarray:
    """Of tokens and the end [V + 1, V + 1]."""
    vocab = len(source.first_V)
    chain = np.zeros((vocab + 1, vocab + 1))
    for token in range(vocab):
        row = token if len(source.p_RC) > 1 else 0
        chain[token, source.next_RC[row]] = (1 - source.end) * source.p_RC[row]
        chain[token, vocab] = source.end
    chain[vocab, :vocab] = source.first_V
    return chain


def stationary(chain: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(chain.T)
    vector = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return vector / vector.sum()


@pytest.mark.parametrize("name", SOURCES)
def test_the_numbers_are_those_of_the_whole_chain(name: str) -> None:
    source = SOURCES[name]
    chain = chain_of(source)
    share = stationary(chain)
    assert source.entropy_rate == pytest.approx(share @ entropy(chain, axis=1), rel=1e-9)
    assert source.unigram_entropy == pytest.approx(entropy(share), rel=1e-9)
    np.testing.assert_allclose(source.token_share_V, share[:-1] / share[:-1].sum(), atol=1e-10)


def test_closed_forms() -> None:
    p = np.arange(1, 31) ** -1.2
    ends = entropy([0.2, 0.8])
    assert SOURCES["zipf"].entropy_rate == pytest.approx((entropy(p) + ends) / 1.2)
    assert spam(12, 9).entropy_rate == pytest.approx((entropy([1, 8]) + np.log(12) / 9) / (10 / 9))


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_drawn_has_its_counts(name: str) -> None:
    """Pairs of the stream against the chain, by the likelihood that the chain gives it."""
    source = SOURCES[name]
    documents = list(source.documents(60_000, seed=3))
    vocab = len(source.first_V)
    stream = np.concatenate([np.append(document, vocab) for document in documents])
    assert 60_000 <= len(stream) - len(documents) < 60_200
    chain = chain_of(source)
    with np.errstate(divide="ignore"):
        nats = -np.log(chain[stream[:-1], stream[1:]])  # inf where the chain has no such pair
    assert nats.mean() == pytest.approx(source.entropy_rate, abs=4 * nats.std() / len(nats) ** 0.5)
    share = np.bincount(stream, minlength=vocab + 1) / len(stream)
    np.testing.assert_allclose(share, stationary(chain), atol=0.015)
    again = list(source.documents(60_000, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(documents, again, strict=True))
    other = next(source.documents(100, seed=4))
    assert not np.array_equal(documents[0], other)


def test_bad_sizes() -> None:
    for make in (lambda: zipf(1), lambda: spam(4, length=0.5), lambda: bigram(4, successors=5)):
        with pytest.raises(HeadlessError, match="must be"):
            make()
