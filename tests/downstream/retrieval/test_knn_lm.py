"""kNN-LM against the formula in float64, over all stored contexts and the whole vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import gpt_neox

from headless.data.stream import open_dataset
from headless.downstream.retrieval.contexts import nearest_contexts, view_context
from headless.downstream.retrieval.knn import (
    TEMPERATURES,
    WEIGHTS,
    knn_lm_scores,
    mixture_nats,
    neighbor_weights,
)
from headless.downstream.retrieval.store import Window, build_store, read_windows
from headless.errors import HeadlessError

pytest.importorskip("faiss")


def dense(queries_QD, keys_ND, values_N, vocabulary: int, tau: float, k: int) -> np.ndarray:
    """p_kNN [Q, V] in float64."""
    squared = np.square(queries_QD[:, None].astype(float) - keys_ND[None].astype(float)).sum(-1)
    shares = np.zeros((len(queries_QD), vocabulary))
    for q, row in enumerate(squared):
        near = np.argsort(row)[:k]
        weights = np.exp(-(row[near] - row[near].min()) / tau)
        np.add.at(shares[q], values_N[near], weights / weights.sum())
    return shares


@pytest.mark.parametrize(("weight", "temperature", "k"), [(0.3, 0.2, 20), (0.9, 0.01, 500)])
def test_scores_are_the_formula(
    dataset: Path, tmp_path: Path, weight: float, temperature: float, k: int
) -> None:
    lm = gpt_neox(dataset)
    store = build_store(lm, dataset, tmp_path / "store", max_tokens=400)
    stream = open_dataset(dataset).split("validation")
    given: Any = {"weights": [weight], "temperatures": [temperature], "max_tokens": 150}
    scores = knn_lm_scores(lm, store, store.index(), dataset, neighbors=k, **given)
    windows = list(read_windows(lm, stream, 150, 32, scored=True))
    odd = windows[1::2]
    queries = np.concatenate([w.hidden_nD.numpy() for w in odd])
    targets = np.concatenate([w.targets_n.numpy() for w in odd])
    base = torch.cat([w.log_probability_n for w in odd if w.log_probability_n is not None])
    tau = temperature * store.manifest.spread
    p = dense(queries, store.keys_ND, store.values_N, 320, tau, min(k, 400))
    np.testing.assert_allclose(p.sum(1), 1)
    right = p[np.arange(len(targets)), targets]
    nats = -np.log(weight * right + (1 - weight) * base.double().exp().numpy())
    assert scores.knn_nats == pytest.approx(nats.mean(), abs=1e-3)
    assert scores.base_nats == pytest.approx(-float(base.double().mean()), abs=1e-6)
    assert scores.gain == pytest.approx(scores.base_nats - scores.knn_nats)
    assert scores.covered == pytest.approx((right > 0).mean(), abs=0.02)
    assert scores.tokens == len(targets)
    assert scores.chosen_on_tokens + scores.tokens == 150
    sums = [g.sum() for g in np.split(-base.double().numpy() - nats - scores.gain,
            np.cumsum([len(w.targets_n) for w in odd])[:-1])]  # fmt: skip
    error = np.sqrt(np.square(sums).sum() * len(sums) / (len(sums) - 1)) / len(targets)
    assert scores.gain_error == pytest.approx(error, rel=0.02)


def test_numbers_are_chosen_on_the_other_half(dataset: Path, tmp_path: Path) -> None:
    lm = gpt_neox(dataset, hidden_size=32)
    store = build_store(lm, dataset, tmp_path / "store", max_tokens=600)
    scores = knn_lm_scores(lm, store, store.index(), dataset, neighbors=40, max_tokens=200)
    stream = open_dataset(dataset).split("validation")
    windows = list(read_windows(lm, stream, 200, 32, scored=True))

    def nats(half: list[Window], weight: float, temperature: float) -> float:
        queries, targets = (np.concatenate([w[i].numpy() for w in half]) for i in (0, 1))
        tau = temperature * store.manifest.spread
        p = dense(queries, store.keys_ND, store.values_N, 320, tau, 40)
        base = np.concatenate([w[2].double().exp().numpy() for w in half])  # type: ignore[union-attr]
        right = p[np.arange(len(targets)), targets]
        return float(-np.log(weight * right + (1 - weight) * base).mean())

    grid = [(weight, t) for weight in WEIGHTS[::3] for t in TEMPERATURES]
    chosen = nats(windows[::2], scores.weight, scores.temperature)
    assert chosen <= min(nats(windows[::2], *pair) for pair in grid) + 1e-6
    assert scores.knn_nats == pytest.approx(
        nats(windows[1::2], scores.weight, scores.temperature), abs=1e-3
    )
    # The other half would have chosen other numbers: here they are told apart.
    assert min(nats(windows[1::2], *pair) for pair in grid) < scores.knn_nats
    assert scores.chosen_on_tokens + scores.tokens == 200


def test_neighbours_help_a_model_that_knows_nothing_about_tokens(
    dataset: Path, tmp_path: Path
) -> None:
    """Random weights still tell contexts apart: the store of the same grammar must help."""
    lm = gpt_neox(dataset, hidden_size=32)
    store = build_store(lm, dataset, tmp_path / "store")
    scores = knn_lm_scores(lm, store, store.index(), dataset, neighbors=128)
    assert scores.gain > 5 * scores.gain_error > 0
    assert scores.weight in WEIGHTS
    assert scores.weight > 0
    assert scores.chosen_on_tokens > 0
    alone = knn_lm_scores(lm, store, store.index(), dataset, weights=[0.0])
    assert alone.knn_nats == pytest.approx(alone.base_nats)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), k=st.integers(1, 9), tau=st.floats(1e-3, 1e3))
def test_a_distribution_sums_to_one(seed: int, k: int, tau: float) -> None:
    draw = np.random.default_rng(seed)
    distances_k, values_k = draw.random(k) * 100, draw.integers(4, size=k)
    weights_k = np.exp(-(distances_k - distances_k.min()) / tau)
    shares_4 = np.bincount(values_k, weights_k / weights_k.sum(), minlength=4)
    made_4 = [
        neighbor_weights(distances_k[None], tau)[0] @ (values_k == token) for token in range(4)
    ]
    assert sum(made_4) == pytest.approx(1)
    assert made_4 == pytest.approx(shares_4.tolist())


def test_neighbours_that_were_not_found_do_not_vote() -> None:
    weights = neighbor_weights(np.array([[1.0, np.inf], [np.inf, np.inf]]), 1.0)
    assert weights.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    found = weights.sum(axis=1)
    nats = mixture_nats(np.log([0.5, 0.5]), found, 0.2)
    np.testing.assert_allclose(nats, -np.log([0.6, 0.4]))


def test_a_context_of_the_store_finds_itself(dataset: Path, tmp_path: Path) -> None:
    lm = gpt_neox(dataset)
    store = build_store(lm, dataset, tmp_path / "store", max_tokens=300)
    tokens = open_dataset(dataset).split("train")[:301].tolist()
    view = view_context(lm, lm.tokenizer.decode(tokens[:9]), k=5)
    index = store.index()
    near = nearest_contexts(lm, store, index, view.hidden_D, 3)
    assert near[0]["position"] == 9
    assert near[0]["token"] == lm.tokenizer.decode(tokens[9])
    assert near[0]["before"] == lm.tokenizer.decode(tokens[1:9])
    assert near[0]["after"] == lm.tokenizer.decode(tokens[10:14])
    assert near[0]["distance"] < near[1]["distance"]


def test_misuse_is_one_line(dataset: Path, tmp_path: Path) -> None:
    lm = gpt_neox(dataset)
    store = build_store(lm, dataset, tmp_path / "store", max_tokens=50)
    index = store.index()
    for options, message in (
        ({"max_tokens": 40}, "too few to choose"),
        ({"split": "train"}, "is the text of the store"),
    ):
        with pytest.raises(HeadlessError, match=message):
            knn_lm_scores(lm, store, index, dataset, **options)  # type: ignore[arg-type]
