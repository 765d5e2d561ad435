"""What a model makes of a context, and what a store of others adds.

Nearest contexts as a language model (Khandelwal et al. 2020, "Generalization through
Memorization"): p(v) = λ p_kNN(v) + (1 - λ) p_model(v), p_kNN(v) ∝ Σ exp(-d²/τ) over the neighbours
whose next token is v, d² the squared distance of hidden states.

Temperatures are given in units of a store's spread (the mean squared distance of its keys from
their mean), so that one number means the same for models whose hidden states differ in length.

Shapes: Q queries, k neighbours, R temperatures, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.data.stream import tokens_file
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import Progress, VectorIndex
from headless.downstream.retrieval.store import HiddenStore, Window, open_for, read_windows
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # that are tried
WEIGHTS = tuple(n / 20 for n in range(20))  # λ that are tried: 0, 0.05, ..., 0.95
QUERIES = 1024  # that are searched at a time, about
WEIGHT, TEMPERATURE = 0.25, 0.05  # where none are given
BEFORE, AFTER = 12, 4  # tokens of a neighbour's text around its next token


@dataclass(frozen=True)
class Mixture:
    """How neighbours and model are mixed."""

    neighbors: int = 256  #: how many stored contexts vote on the next token
    #: their share λ; None: the best of `WEIGHTS` on half of a text, 0.25 for a context.
    weight: float | None = None
    #: of softmax(-distance²), in units of the store's spread; None: likewise, 0.05 for a context
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight < 1:
            raise HeadlessError(f"knn_weight must be in [0, 1), got {self.weight}")
        if self.temperature is not None and not self.temperature > 0:
            raise HeadlessError(f"knn_temperature must be positive, got {self.temperature}")
        if self.neighbors < 1:
            raise HeadlessError(f"knn_neighbors must be at least 1, got {self.neighbors}")


@dataclass(frozen=True)
class KnnScores:
    """Nats a token on the windows with odd numbers, with and without neighbours.

    λ and temperature were chosen, where they were not given, on those with even numbers.
    """

    base_nats: float  #: the model alone
    knn_nats: float  #: the mixture
    gain: float  #: base_nats - knn_nats
    gain_error: float  #: its standard error over windows
    weight: float  #: λ
    temperature: float  #: in units of the store's spread
    neighbors: int
    covered: float  #: share of the tokens that followed one of their context's neighbours
    tokens: int
    chosen_on_tokens: int  #: 0: λ and temperature were given


def neighbor_weights(distances_Qk: np.ndarray, tau: float) -> np.ndarray:
    """softmax(-d²/τ) over the neighbours, float64 [Q, k]; 0 for one that is missing (+inf)."""
    distances_Qk = distances_Qk.astype(np.float64)
    nearest_Q1 = distances_Qk.min(axis=1, keepdims=True)
    nearest_Q1[~np.isfinite(nearest_Q1)] = 0.0  # all are missing
    weights_Qk = np.exp((nearest_Q1 - distances_Qk) / tau)
    return weights_Qk / np.maximum(weights_Qk.sum(axis=1, keepdims=True), 1e-300)


def knn_probability(
    distances_Qk: np.ndarray, values_Qk: np.ndarray, targets_Q: np.ndarray, tau: float
) -> np.ndarray:
    """p_kNN of each target: float64 [Q]."""
    right_Qk = values_Qk == targets_Q[:, None]
    return (neighbor_weights(distances_Qk, tau) * right_Qk).sum(axis=1)


def mixture_nats(base_log_Q: np.ndarray, knn_Q: np.ndarray, weight: float) -> np.ndarray:
    """-log(λ p_kNN + (1 - λ) p_model) of each target, whose log p_model is given: float64 [Q]."""
    return -np.log(weight * knn_Q + (1.0 - weight) * np.exp(base_log_Q.astype(np.float64)))


def knn_lm_scores(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    data: Path | str,
    mixture: Mixture,
    *,
    split: str = "validation",
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> KnnScores:
    """Whether neighbours help the store's model on the first `limit` tokens of another dataset."""
    if limit is not None and limit < 1:
        raise HeadlessError(f"limit must be at least 1, got {limit}")
    dataset, stream = open_for(lm, data, split)
    if dataset.manifest.files[tokens_file(split)]["sha256"] == store.manifest.dataset_sha256:
        raise HeadlessError(
            f"the {split} split of {data} is the text of the store, where every token finds "
            "itself: evaluate on another split"
        )
    length = store.manifest.context_length
    total = min(len(stream) - 1, limit or len(stream))
    windows = read_windows(lm, stream, total, length, scored=True)
    temperatures = TEMPERATURES if mixture.temperature is None else (mixture.temperature,)
    statistics, sizes = [], []
    for group, group_sizes in _statistics(windows, store, index, mixture.neighbors, temperatures):
        statistics.append(group)
        sizes += group_sizes
        progress(sum(sizes), total)
    if len(sizes) < 4:
        raise HeadlessError(
            f"{total} tokens are {len(sizes)} windows of {length}, too few to choose on one half "
            "and report on the other: evaluate on more text"
        )
    weights = WEIGHTS if mixture.weight is None else (mixture.weight,)
    window_Q = np.repeat(np.arange(len(sizes)), sizes)
    all_SQ = np.concatenate(statistics, axis=1)
    choose, report = (all_SQ[:, window_Q % 2 == parity] for parity in (0, 1))
    _, weight, best = min(
        (float(mixture_nats(choose[0], knn_Q, weight).mean()), weight, t)
        for t, knn_Q in enumerate(choose[2:])
        for weight in weights
    )
    knn_nats_Q = mixture_nats(report[0], report[2 + best], weight)
    gain_Q = -report[0] - knn_nats_Q
    return KnnScores(
        base_nats=float(-report[0].mean()),
        knn_nats=float(knn_nats_Q.mean()),
        gain=float(gain_Q.mean()),
        gain_error=_error_of_mean(gain_Q, window_Q[window_Q % 2 == 1]),
        weight=weight,
        temperature=temperatures[best],
        neighbors=min(mixture.neighbors, len(store.values_N)),
        covered=float(report[1].mean()),
        tokens=report.shape[1],
        chosen_on_tokens=0 if len(temperatures) * len(weights) == 1 else choose.shape[1],
    )


def _statistics(
    windows: Iterator[Window],
    store: HiddenStore,
    index: VectorIndex,
    neighbors: int,
    temperatures: Sequence[float],
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """[2 + R, Q] for several windows at a time, and the number of positions in each window.

    The rows: log p_model, whether a neighbour has the target, p_kNN at each temperature.
    """
    group: list[Window] = []
    for window in chain(windows, [None]):
        if window is not None:
            group.append(window)
        if not group or (window is not None and sum(len(w.targets_n) for w in group) < QUERIES):
            continue
        targets_Q = np.concatenate([w.targets_n.numpy() for w in group])
        base_Q = np.concatenate([w.log_probability_n.numpy() for w in group])  # type: ignore[union-attr]
        queries_QD = np.concatenate([w.hidden_nD.numpy() for w in group])
        distances_Qk, ids_Qk = index.search(queries_QD, neighbors)
        values_Qk = np.where(ids_Qk < 0, -1, store.values_N[ids_Qk])
        covered_Q = (values_Qk == targets_Q[:, None]).any(axis=1)
        taus = [t * store.manifest.spread for t in temperatures]
        knn = [knn_probability(distances_Qk, values_Qk, targets_Q, tau) for tau in taus]
        statistics = np.stack([base_Q.astype(np.float64), covered_Q, *knn])
        yield statistics, [len(w.targets_n) for w in group]
        group = []


def _error_of_mean(values_Q: np.ndarray, window_Q: np.ndarray) -> float:
    """Standard error of a mean over tokens, which are alike within a window."""
    _, place_Q = np.unique(window_Q, return_inverse=True)
    sums_W = np.bincount(place_Q, weights=values_Q - values_Q.mean())
    return float(np.sqrt(np.square(sums_W).sum() * len(sums_W) / (len(sums_W) - 1)) / len(values_Q))


@dataclass(frozen=True)
class ContextView:
    """What a model makes of a context."""

    hidden_D: Tensor  #: its last hidden state, float32
    #: of the next token (at a mask: of the token there); None without an LM head
    log_probability_V: Tensor | None
    #: token_id, text, log_probability, pmi and count of the tokens, by probability
    likeliest: list[dict[str, Any]]
    #: by pointwise mutual information with the context; None without a unigram distribution
    specific: list[dict[str, Any]] | None


def view_context(
    lm: LanguageModel, context: str, k: int = 10, *, min_count: int = 10
) -> ContextView:
    """The k likeliest tokens after a context, and the k that are most specific for it.

    A masked model needs exactly one mask in the context; the empty context begins a document.
    Tokens rarer than `min_count` are not specific: their mutual information is mostly noise.
    """
    if lm.task == "causal":
        ids_1T, _ = lm.encode_prompt(context, 1)
        place = -1
    else:
        ids = lm.tokenizer.encode(context, split_special_tokens=False)  # its mask is a token
        if ids.count(lm.tokenizer.mask_token_id) != 1:
            raise HeadlessError(
                f"{lm.name} is a masked model: write {lm.tokenizer.mask_token} exactly once in the "
                "context"
            )
        ids_1T, place = torch.tensor([ids]), ids.index(lm.tokenizer.mask_token_id)
    hidden_1TD, logits_1TV = lm.last_states(ids_1T, with_logits=lm.has_head)
    hidden_D = hidden_1TD[0, place].float().cpu()
    if logits_1TV is None:
        return ContextView(hidden_D, None, [], None)
    log_V = logits_1TV[0, place].float().cpu().log_softmax(dim=-1)
    counts_V = None if lm.unigram_count_V is None else lm.unigram_count_V.cpu()
    pmi_V = None if counts_V is None else log_V - log_unigram(counts_V)

    def largest(values_V: Tensor, limit: int) -> list[dict[str, Any]]:
        return [
            {
                "token_id": i,
                "text": lm.tokenizer.decode([i]),
                "log_probability": float(log_V[i]),
                "pmi": None if pmi_V is None else float(pmi_V[i]),
                "count": lm.count(i),
            }
            for i in values_V.topk(min(k, limit)).indices.tolist()
        ]

    specific = None
    if pmi_V is not None and counts_V is not None:
        frequent_V = counts_V >= min_count
        specific = largest(pmi_V.where(frequent_V, -torch.inf), int(frequent_V.sum()))
    return ContextView(hidden_D, log_V, largest(log_V, len(log_V)), specific)


def nearest_contexts(
    lm: LanguageModel, store: HiddenStore, index: VectorIndex, hidden_D: Tensor, k: int
) -> list[dict[str, Any]]:
    """The k stored contexts whose hidden states are nearest.

    Each with the `position` of its next token in the store's text, the squared `distance`, the
    texts `before` and `after`, and the next `token`.
    """
    distances_1k, rows_1k = index.search(hidden_D[None].numpy(), k)
    contexts = []
    for distance, row in zip(distances_1k[0].tolist(), rows_1k[0].tolist(), strict=True):
        if row >= 0:
            before, token, after = store.window(row, BEFORE, AFTER)
            texts = {"before": before, "token": [token], "after": after}
            words = {name: lm.tokenizer.decode(ids) for name, ids in texts.items()}
            contexts.append({"position": row + 1, "distance": distance, **words})
    return contexts


def mixed_tokens(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    view: ContextView,
    k: int,
    mixture: Mixture,
) -> list[dict[str, Any]]:
    """The k likeliest next tokens: probabilities of the model, the neighbours and the mixture."""
    if view.log_probability_V is None:
        raise HeadlessError(f"{lm.name} has no LM head: there is nothing to mix neighbours with")
    weight = WEIGHT if mixture.weight is None else mixture.weight
    tau = (mixture.temperature or TEMPERATURE) * store.manifest.spread
    distances_1k, rows_1k = index.search(view.hidden_D[None].numpy(), mixture.neighbors)
    values_k = np.where(rows_1k[0] < 0, 0, store.values_N[rows_1k[0]])  # missing ones weigh nothing
    weights_k = neighbor_weights(distances_1k, tau)[0]
    model_V = view.log_probability_V.double().exp()
    knn_V = torch.from_numpy(np.bincount(values_k, weights_k, minlength=len(model_V)))
    mixture_V = model_V * (1.0 - weight) + knn_V * weight
    best = mixture_V.topk(min(k, len(mixture_V)))
    return [
        {
            "token_id": t,
            "text": lm.tokenizer.decode([t]),
            "model": float(model_V[t]),
            "knn": float(knn_V[t]),
            "mixture": p,
        }
        for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
