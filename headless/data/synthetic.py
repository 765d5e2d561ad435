"""Sources of tokens whose truth is known: what a model can learn of each is an exact number.

Every source is a Markov chain over tokens 0 to V - 1 in documents of random length, which end after
each token with the same probability: with the end of a document as one more token, V, the whole
stream is a Markov chain. Each document is one sequence of item ids for `headless prepare
--item_field items`.

Shapes: V tokens, R rows (V, or 1 that every token shares), C tokens that may follow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from headless.errors import HeadlessError

Number = TypeVar("Number", int, float)
TOGETHER = 256  # documents that are drawn at a time
ROUNDS, ENOUGH = 100_000, 1e-14  # of the stationary distribution, and the change that ends them


@dataclass(frozen=True)
class Source:
    """What begins a document, what follows each token, and how documents end."""

    first_V: np.ndarray  #: probabilities of a document's first token
    next_RC: np.ndarray  #: tokens that may follow
    p_RC: np.ndarray  #: with these probabilities
    end: float  #: probability that a token is its document's last

    @property
    def token_share_V(self) -> np.ndarray:  # noqa: N802 - the shape is part of the name
        """How often each token occurs among all but the ends: the stationary distribution."""
        share_V = self.first_V
        for _ in range(ROUNDS):
            rows_R = share_V if len(self.p_RC) > 1 else share_V.sum(keepdims=True)
            weight_RC = rows_R[:, None] * self.p_RC
            moved_V = np.bincount(self.next_RC.ravel(), weight_RC.ravel(), len(share_V))
            before, share_V = share_V, self.end * self.first_V + (1 - self.end) * moved_V
            if np.abs(share_V - before).sum() < ENOUGH:
                break
        return share_V

    @property
    def entropy_rate(self) -> float:
        """Nats a token, ends among them: what the best model of the stream is left with."""
        of_row_R = np.array([entropy(p_C) for p_C in self.p_RC])
        follow = float((self.token_share_V * of_row_R).sum())  # what follows a token
        ends = entropy(np.array([self.end, 1 - self.end]))
        a_token = ends + (1 - self.end) * follow
        return (a_token + self.end * entropy(self.first_V)) / (1 + self.end)

    @property
    def unigram_entropy(self) -> float:
        """Nats a token, ends among them, of the best model that sees no context."""
        return entropy(np.append(self.token_share_V, self.end) / (1 + self.end))

    def documents(self, tokens: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Documents of token ids, until they have so many tokens or more."""
        draw, drawn = np.random.default_rng(seed), 0
        cdf_V, cdf_RC = np.cumsum(self.first_V), np.cumsum(self.p_RC, axis=1)
        while drawn < tokens:
            length_N = draw.geometric(self.end, TOGETHER)
            now_N = _pick(cdf_V[None], np.zeros(TOGETHER, int), draw)
            columns = [now_N]
            for _ in range(1, length_N.max()):
                row_N = now_N if len(cdf_RC) > 1 else np.zeros(TOGETHER, int)
                now_N = self.next_RC[row_N, _pick(cdf_RC, row_N, draw)]
                columns.append(now_N)
            token_NT = np.stack(columns, axis=1)
            for token_T, length in zip(token_NT, length_N, strict=True):
                if drawn >= tokens:
                    return
                drawn += length
                yield token_T[:length]


def zipf(vocab_size: int, exponent: float = 1.0, length: float = 256) -> Source:
    """Independent tokens, the one of rank r with a probability as r to the power -exponent."""
    p_V = _zipf(_checked(vocab_size, 2, "vocab_size"), exponent)
    return Source(p_V, np.arange(vocab_size)[None], p_V[None], _end(length))


def bigram(
    vocab_size: int,
    successors: int = 8,
    exponent: float = 1.0,
    length: float = 256,
    seed: int = 0,
) -> Source:
    """After each token as many others, drawn at random, frequent ones more often, with Zipf's
    probabilities in the order of the draw; documents begin as Zipf's law has it."""
    first_V = _zipf(_checked(vocab_size, 2, "vocab_size"), exponent)
    if not 1 <= successors <= vocab_size:
        raise HeadlessError(f"successors must be from 1 to {vocab_size}, got {successors}")
    draw = np.random.default_rng(seed)
    next_VC = np.stack(
        [draw.choice(vocab_size, successors, replace=False, p=first_V) for _ in range(vocab_size)]
    )
    p_VC = np.tile(_zipf(successors, exponent), (vocab_size, 1))
    return Source(first_V, next_VC, p_VC, _end(length))


def spam(vocab_size: int, length: float = 256) -> Source:
    """SpamLang (Godey and Artzi 2026): a random token, again and again. Nothing is easier to say,
    and a head of a low rank learns it slowly where the vocabulary is large."""
    same_VC = np.arange(_checked(vocab_size, 2, "vocab_size"))[:, None]
    first_V = np.full(vocab_size, 1 / vocab_size)
    return Source(first_V, same_VC, np.ones((vocab_size, 1)), _end(length))


def entropy(p: np.ndarray) -> float:
    """In nats."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def _pick(cdf_RC: np.ndarray, row_N: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A column of each row with the probabilities whose running sums these are."""
    at_N = draw.random(len(row_N))
    if len(cdf_RC) == 1:
        picked_N = np.searchsorted(cdf_RC[0], at_N, side="right")
    else:
        picked_N = (cdf_RC[row_N] <= at_N[:, None]).sum(axis=1)
    return picked_N.clip(max=cdf_RC.shape[1] - 1)  # the sums end at 1 but for rounding


def _zipf(count: int, exponent: float) -> np.ndarray:
    weight = np.arange(1, count + 1, dtype=float) ** -exponent
    return weight / weight.sum()


def _end(length: float) -> float:
    return 1 / _checked(length, 1, "length")


def _checked(value: Number, least: int, name: str) -> Number:
    if value < least:
        raise HeadlessError(f"{name} must be at least {least}, got {value}")
    return value
