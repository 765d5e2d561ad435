"""Nearest contexts as a language model (Khandelwal et al. 2020, "Generalization through
Memorization"): p(v) = λ p_kNN(v) + (1 - λ) p_model(v), p_kNN(v) ∝ Σ exp(-d²/τ) over the neighbours
whose next token is v, d² the squared distance of hidden states.

Temperatures are given in units of a store's spread (the mean squared distance of its keys from
their mean), so that one number means the same for models whose hidden states differ in length.

Shapes: Q queries, k neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headless.data.stream import tokens_file
from headless.downstream.loading import LanguageModel
from headless.downstream.retrieval.indexes import Progress, VectorIndex
from headless.downstream.retrieval.store import HiddenStore
from headless.downstream.retrieval.windows import Window, open_for, read_windows
from headless.errors import HeadlessError

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # that are tried
WEIGHTS = tuple(n / 20 for n in range(20))  # λ that are tried: 0, 0.05, ..., 0.95
QUERIES = 1024  # that are searched at a time, about


@dataclass(frozen=True)
class KnnScores:
    """Nats a token of a text, with and without neighbours.

    λ and temperature were chosen on the windows with even numbers (where they were not given);
    everything here is of those with odd numbers.

    Args:
        base_nats: the model alone.
        knn_nats: the mixture.
        gain: base_nats - knn_nats.
        gain_error: its standard error over windows.
        weight: λ.
        temperature: in units of the store's spread.
        neighbors: k.
        covered: share of the tokens that one of the k neighbours was followed by.
        tokens: that were scored.
        chosen_on_tokens: on which λ and temperature were chosen; 0: both were given.
    """

    base_nats: float
    knn_nats: float
    gain: float
    gain_error: float
    weight: float
    temperature: float
    neighbors: int
    covered: float
    tokens: int
    chosen_on_tokens: int


def neighbor_weights(distances_Qk: np.ndarray, tau: float) -> np.ndarray:
    """softmax(-d²/τ) over the neighbours, float64 [Q, k]; 0 for one that was not found (+inf)."""
    distances_Qk = distances_Qk.astype(np.float64)
    nearest_Q1 = distances_Qk.min(axis=1, keepdims=True)
    nearest_Q1[~np.isfinite(nearest_Q1)] = 0.0  # none was found
    weights_Qk = np.exp((nearest_Q1 - distances_Qk) / tau)
    return weights_Qk / np.maximum(weights_Qk.sum(axis=1, keepdims=True), 1e-300)


def knn_distribution(distances_k: np.ndarray, values_k: np.ndarray, tau: float) -> dict[int, float]:
    """p_kNN of one context: token to probability, the likeliest first."""
    shares: dict[int, float] = {}
    weights_k = neighbor_weights(distances_k[None], tau)[0]
    for value, weight in zip(values_k.tolist(), weights_k.tolist(), strict=True):
        shares[value] = shares.get(value, 0.0) + weight
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def knn_probability(
    distances_Qk: np.ndarray, values_Qk: np.ndarray, targets_Q: np.ndarray, tau: float
) -> np.ndarray:
    """p_kNN of each target: float64 [Q]."""
    right_Qk = values_Qk == targets_Q[:, None]
    return (neighbor_weights(distances_Qk, tau) * right_Qk).sum(axis=1)


def mixture_nats(base_log_Q: np.ndarray, knn_Q: np.ndarray, weight: float) -> np.ndarray:
    """-log(λ p_kNN + (1 - λ) p_model): float64 [Q].

    Args:
        base_log_Q: log p_model of the targets.
        knn_Q: p_kNN of the targets.
        weight: λ in [0, 1).
    """
    return -np.log(weight * knn_Q + (1.0 - weight) * np.exp(base_log_Q.astype(np.float64)))


def check_numbers(weight: float | None, temperature: float | None, neighbors: int) -> None:
    """Refuse values out of their range.

    Raises:
        HeadlessError: one is.
    """
    if weight is not None and not 0 <= weight < 1:
        raise HeadlessError(f"knn_weight must be in [0, 1), got {weight}")
    if temperature is not None and not temperature > 0:
        raise HeadlessError(f"knn_temperature must be positive, got {temperature}")
    if neighbors < 1:
        raise HeadlessError(f"knn_neighbors must be at least 1, got {neighbors}")


def knn_lm_scores(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    data: Path | str,
    *,
    split: str = "validation",
    limit: int | None = None,
    neighbors: int = 256,
    weight: float | None = None,
    temperature: float | None = None,
    progress: Progress = lambda done, total: None,
) -> KnnScores:
    """Whether neighbours help a model on a text that the store does not hold.

    Args:
        lm: the store's model.
        store: see `headless.downstream.retrieval.store`.
        index: of the store's keys.
        data: a prepared dataset of the model's tokenizer.
        split: of the dataset.
        limit: only the first so many tokens.
        neighbors: k.
        weight: λ; None: the best of `WEIGHTS` on half of the text.
        temperature: in units of the store's spread; None: the best of `TEMPERATURES`.
        progress: gets tokens that are scored and tokens in all.

    Raises:
        HeadlessError: a dataset that does not fit, the text of the store itself, too little text,
            or a value out of its range.
    """
    check_numbers(weight, temperature, neighbors)
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
    temperatures = TEMPERATURES if temperature is None else (temperature,)
    base, covered, number, done = [], [], [], 0
    knn: list[np.ndarray] = []  # of [temperatures, n]
    for group in _groups(windows):
        targets_Q = np.concatenate([w.targets_n.numpy() for w in group])
        queries_QD = np.concatenate([w.hidden_nD.numpy() for w in group])
        distances_Qk, ids_Qk = index.search(queries_QD, neighbors)
        values_Qk = np.where(ids_Qk < 0, -1, store.values_N[ids_Qk])
        taus = [t * store.manifest.spread for t in temperatures]
        knn.append(
            np.stack([knn_probability(distances_Qk, values_Qk, targets_Q, tau) for tau in taus])
        )
        base += [w.log_probability_n.numpy() for w in group if w.log_probability_n is not None]
        covered.append((values_Qk == targets_Q[:, None]).any(axis=1))
        number += [len(w.targets_n) for w in group]
        done += len(targets_Q)
        progress(done, total)
    window_Q = np.repeat(np.arange(len(number)), number)
    if len(number) < 4:
        raise HeadlessError(
            f"{total} tokens are {len(number)} windows of {length}, too few to choose on one half "
            "and report on the other: evaluate on more text"
        )
    base_Q, knn_TQ, covered_Q = (
        np.concatenate(base),
        np.concatenate(knn, 1),
        np.concatenate(covered),
    )
    choose_Q, report_Q = window_Q % 2 == 0, window_Q % 2 == 1
    weights = WEIGHTS if weight is None else (weight,)
    _, best_weight, best = min(
        (float(mixture_nats(base_Q[choose_Q], knn_TQ[t, choose_Q], w).mean()), w, t)
        for t in range(len(temperatures))
        for w in weights
    )
    knn_nats_Q = mixture_nats(base_Q[report_Q], knn_TQ[best, report_Q], best_weight)
    base_nats_Q = -base_Q[report_Q].astype(np.float64)
    gain_Q = base_nats_Q - knn_nats_Q
    return KnnScores(
        base_nats=float(base_nats_Q.mean()),
        knn_nats=float(knn_nats_Q.mean()),
        gain=float(gain_Q.mean()),
        gain_error=_error_of_mean(gain_Q, window_Q[report_Q]),
        weight=best_weight,
        temperature=temperatures[best],
        neighbors=min(neighbors, len(store.values_N)),
        covered=float(covered_Q[report_Q].mean()),
        tokens=int(report_Q.sum()),
        chosen_on_tokens=0 if len(temperatures) * len(weights) == 1 else int(choose_Q.sum()),
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
