"""How far predictions are from those of n-grams of the training text, and for which tokens.

The n-grams are those of `headless.data.anchors`, with the trigram interpolated in the same way:
q(c | a, b) = w c(a, b, c) / c(a, b) + (1 - w) q(c | b), w of the largest likelihood of training
tokens that are left out of the counts. They are counted in at most `MOST` training tokens.

Shapes: V vocabulary, N tokens, C a chunk of them, K deciles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.head.lens import SHUFFLES, counts_of, head_of, reading
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.data.anchors import interpolation_weight
from headless.objectives.base import log_unigram
from headless.training.evaluation import DECILES, decile_of_token

ROWS = 1024  # tokens whose predictions are looked at
LOGITS = 2**22  # of a chunk
MOST, PIECE = 2**24, 2**21  # training tokens that are counted, and at a time
HELD_OUT = 200_000  # of them, with repetition, for an interpolation weight
GRAMS = ("uniform", "unigram", "bigram", "trigram")
MEASURES = (
    Measure("divergence", "divergence of the predictions", null="divergence_shuffled"),
    Measure("nll", "nats of the next token"),
    Measure("explained", "share of the surprisals' variance", null="explained_shuffled"),
)
MICHAELOV = "Michaelov, Levy and Bergen 2025"
DIVERGENCE = {
    name: values("divergence", name).reduced(f"{name}:", lambda x: x[0]) for name in GRAMS
}
OTHER_PLACE = values("divergence_shuffled", "bigram").reduced("bigram:", lambda x: x[0])


@analysis(
    "ngrams",
    title="How far from n-grams are the predictions?",
    about=(
        "The Kullback–Leibler divergence, in nats a token, of the model's predictions from those "
        "of a uniform guess, of how frequent tokens are, and of bigrams and trigrams of the "
        "training text (interpolated with the shorter ones): small where the model says what they "
        "say. Its null is the same n-gram's prediction for another place of the text. Beside it: "
        "what the next token costs each of them, also by its frequency (decile 0: the most "
        "frequent tokens, which make up a tenth of the text), and the share of the variance of the "
        "model's surprisals that theirs explain together (null: surprisals in another order)."
    ),
    needs={"text", "counts", "head", "causal"},
    states="last",
    cheap=True,
    figures=(
        by_rank(
            "ngrams-deciles",
            "Nats that the next token costs the model, by the token's frequency (decile 0: the "
            "most frequent). Dashed: a unigram model; dotted: a bigram model.",
            Ranks("_deciles", "decile of frequency", "nats", "", null="unigram", start="bigram"),
            wide=False,
        ),
    ),
    claims=(
        Claim(
            MICHAELOV,
            "A trained model's predictions are nearer to longer n-grams than to shorter ones",
            (DIVERGENCE["trigram"] < DIVERGENCE["bigram"])
            & (DIVERGENCE["bigram"] < DIVERGENCE["unigram"])
            & (DIVERGENCE["bigram"] < OTHER_PLACE),
            asked=lambda finding: bool(finding.values("divergence", "trigram").size),
        ),
        Claim(
            MICHAELOV,
            "Frequency and n-grams explain most of the variance of surprisals",
            values("explained").only >= 0.5,
            asked=lambda finding: bool(finding.values("explained").size),
        ),
    ),
)
def ngrams(lab: Session, *, nulls: bool) -> Finding:
    """Of the next token after some tokens of the text; the cheap form counts no pairs."""
    head = head_of(lab)
    read = reading(lab, ROWS)
    vocab = len(head.weight_VD)
    counts_V = counts_of(lab, vocab)
    log_p_V = log_unigram(counts_V).double()
    grams = None
    if nulls and lab.subject.tokens is not None:
        pairs = read.before_N.numpy(), read.now_N.numpy()
        grams = Grams.of(lab.subject.tokens, *pairs, log_p_V.exp().numpy())
    flat = {"uniform": torch.full_like(log_p_V, -np.log(vocab)), "unigram": log_p_V}
    names = (*flat, *(GRAMS[2:] if grams is not None else ()))
    tokens = len(read.next_N)
    # Made before the loop: what is kept between large tensors would keep their memory in pieces.
    costs = {name: torch.zeros(tokens).double() for name in ("model", *names)}
    for name, log_q_V in flat.items():
        costs[name][:] = -log_q_V[read.next_N]
    divergence, shuffled = ({name: 0.0 for name in names[2:]} for _ in range(2))
    entropy, sum_V = 0.0, torch.zeros_like(log_p_V)
    for rows in torch.arange(tokens).split(max(2, LOGITS // vocab)):
        states_CD = read.states_ND[rows].to(head.weight_VD.device)
        log_CV = head.logits(states_CD).detach().log_softmax(dim=-1).cpu()
        p_CV = log_CV.exp()
        entropy -= float((p_CV * log_CV).sum(dtype=torch.float64))
        sum_V += p_CV.sum(dim=0, dtype=torch.float64)
        next_C1 = read.next_N[rows, None]
        costs["model"][rows] = -log_CV.gather(1, next_C1)[:, 0].double()
        if grams is not None:
            for name, q_CV in zip(names[2:], grams.rows(rows.numpy()), strict=True):
                log_q_CV = torch.from_numpy(q_CV).log()
                divergence[name] -= float((p_CV * log_q_CV).sum())
                shuffled[name] -= float((p_CV * log_q_CV.roll(1, dims=0)).sum())
                costs[name][rows] = -log_q_CV.gather(1, next_C1)[:, 0]
    divergence |= {name: -float(sum_V @ log_q_V) for name, log_q_V in flat.items()}
    numbers = {Place(n): {"divergence": (divergence[n] - entropy) / tokens} for n in names}
    numbers = {Place("model"): {}, **numbers}
    for name, costs_N in costs.items():
        numbers[Place(name)]["nll"] = float(costs_N.mean())
    for name, total in shuffled.items():
        numbers[Place(name)]["divergence_shuffled"] = (total - entropy) / tokens
    numbers[Place()] = {"entropy": entropy / tokens, "tokens": float(tokens)}
    if grams is not None:
        numbers[Place()] |= explained(costs, lab.seed) | grams.about
    deciles = by_decile(costs, decile_of_token(counts_V)[read.next_N])
    numbers |= deciles[0]
    return Finding(series_of(numbers, MEASURES), {"_deciles": deciles[1]}).answered(
        _answer(numbers, names)
    )


def by_decile(
    costs: dict[str, Tensor], decile_N: Tensor
) -> tuple[dict[Place, dict[str, float]], dict[Place, Spectrum]]:
    """Mean nats by the next token's decile, of those that the text has: numbers, and a curve."""
    known = [k for k in range(DECILES) if bool((decile_N == k).any())]
    means = {
        name: np.array([float(costs_N[decile_N == k].mean()) for k in known])
        for name, costs_N in costs.items()
    }
    numbers = {
        Place("decile", k): {
            "nll": float(means["model"][i]),
            "nll_unigram": float(means["unigram"][i]),
        }
        for i, k in enumerate(known)
    }
    curve = Spectrum(means["model"], means["unigram"], means.get("bigram"), np.array(known))
    return numbers, {Place(): curve}


def explained(costs: dict[str, Tensor], seed: int) -> dict[str, float]:
    """R² of the model's surprisals on those of the n-grams, and in another order."""
    columns = [costs[name] for name in GRAMS[1:]]
    design_NK = torch.stack([torch.ones_like(columns[0]), *columns], dim=1).numpy()
    draw = np.random.default_rng(seed)

    def r2(y_N: np.ndarray) -> float:
        fit, *_ = np.linalg.lstsq(design_NK, y_N, rcond=None)
        rest, total = np.square(y_N - design_NK @ fit).sum(), np.square(y_N - y_N.mean()).sum()
        return float(1 - rest / total) if total > 0 else 0.0

    y_N = costs["model"].numpy()
    chance = max(r2(draw.permutation(y_N)) for _ in range(SHUFFLES))
    return {"explained": r2(y_N), "explained_shuffled": chance}


@dataclass(frozen=True)
class Grams:
    """What followed the contexts of some tokens [N] in a training text."""

    p_V: np.ndarray
    pairs: Any  #: counts of what followed a token [contexts, V], sparse
    triples: Any  #: of what followed two
    pair_N: np.ndarray  #: the row of each token's context
    triple_N: np.ndarray
    pair_weight: float
    triple_weight: float
    about: dict[str, float]

    @classmethod
    def of(
        cls, tokens: np.ndarray, before_N: np.ndarray, now_N: np.ndarray, p_V: np.ndarray
    ) -> "Grams":
        """Count in one pass over at most `MOST` tokens, in pieces from all over the text."""
        vocab = len(p_V)
        now, pair_N = np.unique(now_N, return_inverse=True)
        both, triple_N = np.unique(before_N * vocab + now_N, return_inverse=True)
        pairs, triples, counted = counts_after(tokens, now, both, vocab)
        times, again = (np.asarray(x.sum(axis=1)).ravel() for x in (pairs, triples))
        row, column, number = _left_out(pairs, pair_N)
        pair_weight = interpolation_weight((number - 1) / (times[row] - 1), p_V[column])
        row, column, number = _left_out(triples, triple_N)
        within = np.searchsorted(now, both % vocab)[row]  # the pair's row
        shorter = (np.asarray(pairs[within, column]).ravel() - 1) / (times[within] - 1)
        shorter = pair_weight * shorter + (1 - pair_weight) * p_V[column]
        triple_weight = interpolation_weight((number - 1) / (again[row] - 1), shorter)
        about = {"bigram_weight": pair_weight, "trigram_weight": triple_weight}
        about["counted"] = float(counted)
        return cls(p_V, pairs, triples, pair_N, triple_N, pair_weight, triple_weight, about)

    def rows(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities [C, V] of the bigram and of the trigram."""
        pair = _mixed(self.pairs[self.pair_N[chosen]], self.pair_weight, self.p_V[None])
        return pair, _mixed(self.triples[self.triple_N[chosen]], self.triple_weight, pair)


def _mixed(counts: Any, weight: float, shorter_CV: np.ndarray) -> np.ndarray:
    """The shorter model alone where the context was never followed by anything."""
    times_C1 = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
    longer_CV = weight * counts.toarray() / times_C1.clip(min=1) + (1 - weight) * shorter_CV
    return np.where(times_C1 > 0, longer_CV, shorter_CV)


def counts_after(
    tokens: np.ndarray, now: np.ndarray, both: np.ndarray, vocab: int
) -> tuple[Any, Any, int]:
    """What followed tokens, and pairs a V + b, both sorted: sparse [contexts, V], and of how many
    training tokens."""
    from scipy.sparse import coo_matrix, csr_matrix

    place_V = np.full(vocab, -1)
    place_V[now] = np.arange(len(now))
    found = [csr_matrix((len(c), vocab), dtype=np.int64) for c in (now, both)]
    begins = range(0, max(len(tokens) - 2, 0), PIECE)
    length = min(PIECE, max(1, MOST // max(1, len(begins))))  # of each piece what there is time for
    counted = 0
    for begin in begins:
        piece = np.asarray(tokens[begin : begin + length + 2]).astype(np.int64)
        row = place_V[piece[1:-1]]
        is_asked = row >= 0
        row, follows = row[is_asked], piece[2:][is_asked]
        key = piece[:-2][is_asked] * vocab + piece[1:-1][is_asked]
        place = np.searchsorted(both, key).clip(max=len(both) - 1)
        is_both = both[place] == key
        for i, at, what in ((0, row, follows), (1, place[is_both], follows[is_both])):
            ones = np.ones(len(at), dtype=np.int64)
            found[i] = found[i] + coo_matrix((ones, (at, what)), shape=found[i].shape).tocsr()
        counted += max(len(piece) - 2, 0)
    return found[0], found[1], counted


def _left_out(counts: Any, row_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training tokens that followed the tokens' contexts, equally many for each: the context's row,
    the token, and how often it is in the row; of contexts that occur again."""
    until = np.concatenate([[0], np.cumsum(counts.data)])
    begin = until[counts.indptr[:-1]]
    times = until[counts.indptr[1:]] - begin
    row = np.repeat(row_N, -(-HELD_OUT // len(row_N)))
    row = row[times[row] > 1]
    which = (np.random.default_rng(0).random(len(row)) * times[row]).astype(np.int64)
    at = np.searchsorted(until, begin[row] + which, side="right") - 1
    return row, counts.indices[at], counts.data[at]


def _answer(numbers: Any, names: tuple[str, ...]) -> str:
    far = ", ".join(f"{name} {numbers[Place(name)]['divergence']:.2f}" for name in names)
    words = (
        f"The predictions diverge by (nats) {far}. The next token costs the model "
        f"{numbers[Place('model')]['nll']:.3f} nats"
    )
    if len(names) > 2:
        words += f", a trigram {numbers[Place('trigram')]['nll']:.3f}; n-grams explain "
        words += f"{numbers[Place()]['explained']:.0%} of the variance of its surprisals"
    return f"{words}."
