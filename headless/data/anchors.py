"""What trivial language models score on a validation split: the anchors of every `val/nll`.

Counted in the training split; of the next token, as a causal model predicts it.

* uniform: log V, the same for every token.
* unigram: p(b) = (c(b) + 1) / (N + V), Laplace's rule, so that what was never seen costs something.
* bigram: q(b | a) = w c(a, b) / c(a) + (1 - w) p(b), after Jelinek & Mercer (1980); p alone where a
  was never followed by anything. The weight w maximises the likelihood of training tokens, each
  predicted from the counts without itself (EM, a million tokens spread over the text).

Only pairs that are asked for are counted, so that memory grows with them and not with V or the
text: at most `MOST` targets are scored, in pieces spread evenly over a longer split.
"""

import math
from typing import Any

import numpy as np

from headless.data.stream import COUNTS, TokenDataset, TokenStream
from headless.data.tokenizer import validation_bytes
from headless.progress import Report

PIECE = 4096  # tokens that are sampled together
CHUNK = 2**22  # tokens that are counted at a time
MOST = 4_000_000
MOST_HELD_OUT = 1_000_000
ROUNDS, ENOUGH = 100, 1e-7  # of EM, and the change of the weight that ends it
DECIMALS = 6  # that no machine sums up otherwise


def anchors_of(dataset: TokenDataset, tokenizer: Any, report: Report) -> dict[str, Any] | None:
    """Nats a token (`nll`) and `bits_per_byte` of each, the `bigram_weight`, and how many `targets`
    were scored; None for a split without any. Without a tokenizer there are no bytes."""
    train, vocab_size = dataset.split("train"), dataset.manifest.vocab_size
    contexts, targets = sample(dataset.split("validation"), MOST)
    own_contexts, own_targets = sample(train, MOST_HELD_OUT)
    number = len(targets)
    if not number:
        return None
    keys = np.concatenate([contexts, own_contexts]) * vocab_size
    keys += np.concatenate([targets, own_targets])
    asked, place = np.unique(keys, return_inverse=True)
    pairs = count_pairs(train, asked, vocab_size, report)[place]
    count_V = np.load(dataset.path / COUNTS)
    followed_V = count_V - np.bincount(train[len(train) - 1 :], minlength=vocab_size)
    total = len(train) + vocab_size

    others = followed_V[own_contexts] - 1  # times that the context stands elsewhere
    seen = others > 0
    weight = interpolation_weight(
        (pairs[number:][seen] - 1) / others[seen], count_V[own_targets][seen] / (total - 1)
    )
    unigram = (count_V[targets] + 1) / total
    times = followed_V[contexts]
    bigram = weight * pairs[:number] / times.clip(min=1) + (1 - weight) * unigram
    bigram[times == 0] = unigram[times == 0]
    nll = {"uniform": math.log(vocab_size)}
    nll |= {"unigram": -np.log(unigram).mean(), "bigram": -np.log(bigram).mean()}
    size = 0.0 if tokenizer is None else validation_bytes(dataset, tokenizer)[targets].sum()
    bits = {name: nats * number / math.log(2) / size for name, nats in nll.items() if size}
    return {
        "nll": {name: round(float(value), DECIMALS) for name, value in nll.items()},
        "bits_per_byte": {name: round(float(value), DECIMALS) for name, value in bits.items()},
        "bigram_weight": round(weight, DECIMALS),
        "targets": number,
    }


def sample(stream: TokenStream, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and those that follow them, int64: all, or about `most` in evenly spread pieces."""
    begins = range(0, len(stream) - 1, PIECE)
    begins = begins[:: max(1, -(-len(begins) * PIECE // most))]
    pieces = [stream[begin : begin + PIECE + 1] for begin in begins] or [stream[:0]]
    return np.concatenate([p[:-1] for p in pieces]), np.concatenate([p[1:] for p in pieces])


def count_pairs(
    stream: TokenStream, asked: np.ndarray, vocab_size: int, report: Report
) -> np.ndarray:
    """How often each of some pairs a V + b, sorted, stands in a stream: int64 [pairs]."""
    counts = np.zeros(len(asked), dtype=np.int64)
    kind = np.uint32 if vocab_size**2 <= 2**32 else np.int64  # half as long to sort
    asked = asked.astype(kind)
    size = stream.dtype.itemsize
    for begin in range(0, len(stream) - 1, CHUNK):
        tokens = stream[begin : begin + CHUNK + 1]
        found = np.sort((tokens[:-1] * vocab_size + tokens[1:]).astype(kind))
        first = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]]))
        times = np.diff(first, append=len(found))
        place = np.searchsorted(asked, found[first]).clip(max=len(asked) - 1)
        is_asked = asked[place] == found[first]
        counts[place[is_asked]] += times[is_asked]
        report("counting pairs", min(begin + CHUNK, len(stream)) * size, len(stream) * size)
    return counts


def interpolation_weight(first: np.ndarray, second: np.ndarray) -> float:
    """The share of the first of two models in the mixture under which what they gave these
    probabilities is likeliest, kept off 0 and 1 by one case for each."""
    weight = 0.5
    for _ in range(ROUNDS):
        ours = weight * first
        before, weight = weight, float((ours / (ours + (1 - weight) * second)).sum() + 1)
        weight /= len(first) + 2
        if abs(weight - before) < ENOUGH:
            break
    return weight
