"""Nearest contexts as a language model (Khandelwal et al. 2020, "Generalization through
Memorization"): p(v) = λ p_kNN(v) + (1 - λ) p_model(v), p_kNN(v) ∝ Σ exp(-d²/τ) over the neighbours
whose next token is v, d² the squared distance of hidden states.

Temperatures are given in units of a store's spread (the mean squared distance of its keys from
their mean), so that one number means the same for models whose hidden states differ in length.

Shapes: Q queries, k neighbours, R temperatures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headless.data.stream import tokens_file
from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import Progress, VectorIndex
from headless.downstream.retrieval.store import HiddenStore, Window, open_for, read_windows
from headless.errors import HeadlessError

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # that are tried
WEIGHTS = tuple(n / 20 for n in range(20))  # λ that are tried: 0, 0.05, ..., 0.95
QUERIES = 1024  # that are searched at a time, about


@dataclass(frozen=True)
class Mixture:
    """How neighbours and model are mixed."""

    neighbors: int = 256  #: how many stored contexts vote on the next token
    #: their share λ; None: the best of `WEIGHTS` on half of a text, 0.25 for a context.
    weight: float | None = None
    #: of softmax(-distance²), in units of the store's spread; None: the best of `TEMPERATURES` on
    #: half of a text, 0.05 for a context.
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
    """Nats a token of a text, with and without neighbours.

    λ and temperature were chosen on the windows with even numbers (where they were not given);
    everything here is of those with odd numbers.
    """

    base_nats: float  #: the model alone
    knn_nats: float  #: the mixture
    gain: float  #: base_nats - knn_nats
    gain_error: float  #: its standard error over windows
    weight: float  #: λ
    temperature: float  #: in units of the store's spread
    neighbors: int  #: k
    covered: float  #: share of the tokens that one of the k neighbours was followed by
    tokens: int  #: that were scored
    chosen_on_tokens: int  #: on which λ and temperature were chosen; 0: both were given


def neighbor_weights(distances_Qk: np.ndarray, tau: float) -> np.ndarray:
    """softmax(-d²/τ) over the neighbours, float64 [Q, k]; 0 for one that was not found (+inf)."""
    distances_Qk = distances_Qk.astype(np.float64)
    nearest_Q1 = distances_Qk.min(axis=1, keepdims=True)
    nearest_Q1[~np.isfinite(nearest_Q1)] = 0.0  # none was found
    weights_Qk = np.exp((nearest_Q1 - distances_Qk) / tau)
    return weights_Qk / np.maximum(weights_Qk.sum(axis=1, keepdims=True), 1e-300)


def knn_distribution(distances_k: np.ndarray, values_k: np.ndarray, tau: float) -> dict[int, float]:
    """p_kNN of one context: token to probability, the likeliest first."""
    tokens, place_k = np.unique(values_k, return_inverse=True)
    shares = np.bincount(place_k, weights=neighbor_weights(distances_k[None], tau)[0])
    pairs = zip(tokens.tolist(), shares.tolist(), strict=True)
    return dict(sorted(pairs, key=lambda item: -item[1]))


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
    mixture: Mixture | None = None,
    *,
    split: str = "validation",
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> KnnScores:
    """Whether neighbours help a model on a text that the store does not hold.

    Args:
        lm: the store's model.
        store: see `headless.downstream.retrieval.store`.
        index: of the store's keys.
        data: a prepared dataset of the model's tokenizer.
        mixture: None: λ and temperature are chosen.
        split: of the dataset.
        limit: only the first so many tokens.
        progress: gets tokens that are scored and tokens in all.
    """
    mixture = mixture or Mixture()
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
    weights = WEIGHTS if mixture.weight is None else (mixture.weight,)
    parts, sizes = [], []  # log p_model, whether covered, p_kNN at each temperature: [2 + R, q]
    for group in _groups(windows):
        targets_Q = np.concatenate([w.targets_n.numpy() for w in group])
        queries_QD = np.concatenate([w.hidden_nD.numpy() for w in group])
        base_Q = np.concatenate([w.log_probability_n.numpy() for w in group])  # type: ignore[union-attr]
        distances_Qk, ids_Qk = index.search(queries_QD, mixture.neighbors)
        values_Qk = np.where(ids_Qk < 0, -1, store.values_N[ids_Qk])
        covered_Q = (values_Qk == targets_Q[:, None]).any(axis=1)
        taus = [t * store.manifest.spread for t in temperatures]
        knn = [knn_probability(distances_Qk, values_Qk, targets_Q, tau) for tau in taus]
        parts.append(np.stack([base_Q.astype(np.float64), covered_Q, *knn]))
        sizes += [len(w.targets_n) for w in group]
        progress(sum(sizes), total)
    if len(sizes) < 4:
        raise HeadlessError(
            f"{total} tokens are {len(sizes)} windows of {length}, too few to choose on one half "
            "and report on the other: evaluate on more text"
        )
    window_Q = np.repeat(np.arange(len(sizes)), sizes)
    choose, report = (np.concatenate(parts, 1)[:, window_Q % 2 == n] for n in (0, 1))
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


def _groups(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """Windows until there are enough queries for a search."""
    group: list[Window] = []
    for window in windows:
        group.append(window)
        if sum(len(w.targets_n) for w in group) >= QUERIES:
            yield group
            group = []
    if group:
        yield group


def _error_of_mean(values_Q: np.ndarray, window_Q: np.ndarray) -> float:
    """Standard error of a mean over tokens, which are alike within a window."""
    _, place_Q = np.unique(window_Q, return_inverse=True)
    sums_W = np.bincount(place_Q, weights=values_Q - values_Q.mean())
    return float(np.sqrt(np.square(sums_W).sum() * len(sums_W) / (len(sums_W) - 1)) / len(values_Q))
