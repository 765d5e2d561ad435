"""Indexes against brute force in float64."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headless.downstream.retrieval.indexes import (
    Kind,
    Metric,
    VectorIndex,
    automatic_kind,
    num_lists,
)
from headless.errors import HeadlessError

pytest.importorskip("faiss")

KINDS: list[Kind] = ["exact", "ivf", "hnsw"]
METRICS: list[Metric] = ["inner", "l2", "cosine"]


def brute_force(rows: np.ndarray, queries: np.ndarray, metric: Metric) -> np.ndarray:
    """All scores [Q, N] in float64; squared distances for l2."""
    x, q = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return np.square(q[:, None] - x[None]).sum(-1)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return q @ x.T


def clustered(rows: int = 3000, seed: int = 0, size: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """Rows around centres, of lengths that differ as a language model's do, and queries near."""
    draw = np.random.default_rng(seed)
    centres = 3 * draw.standard_normal((40, size))
    x = centres[draw.integers(40, size=rows)] + draw.standard_normal((rows, size))
    x *= draw.lognormal(0, 0.4, (rows, 1))
    return x.astype(np.float32), (x[:60] + 0.3 * draw.standard_normal((60, size))).astype("f4")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_exact_is_brute_force(metric: Metric, dtype: str) -> None:
    rows, queries = clustered(500)
    rows = rows.astype(dtype)
    scores, ids = VectorIndex(rows, "exact", metric).search(queries, 7)
    wanted = brute_force(rows, queries, metric)
    order = np.argsort(wanted if metric == "l2" else -wanted, axis=1)[:, :7]
    # Up to ties: the scores of what was found are the best ones.
    best = np.take_along_axis(wanted, order, axis=1)
    limit = 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(np.take_along_axis(wanted, ids, axis=1), best, atol=limit)
    np.testing.assert_allclose(scores, best, atol=limit)
    assert (ids == order).mean() > 0.99


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_approximate_finds_nearly_all_with_exact_scores(kind: Kind, metric: Metric) -> None:
    rows, queries = clustered()
    scores, ids = VectorIndex(rows, kind, metric).search(queries, 10)
    wanted = brute_force(rows, queries, metric)
    order = np.argsort(wanted if metric == "l2" else -wanted, axis=1)[:, :10]
    found = [len(set(a) & set(b)) / 10 for a, b in zip(order.tolist(), ids.tolist(), strict=True)]
    assert np.mean(found) >= 0.95
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, ids, 1), rtol=1e-4, atol=1e-3)
    sign = 1 if metric == "l2" else -1
    assert (np.diff(sign * scores, axis=1) >= 0).all()
    assert all(len(set(row)) == 10 for row in ids.tolist())


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_bias_does_not_hide_the_frequent_tokens(kind: Kind) -> None:
    """Rows of a head with log p(v) as a coordinate: few are long, and those win most often."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((4000, 24)) / np.sqrt(24)
    log_p = -1.1 * np.log(np.arange(1, 4001))
    draw.shuffle(log_p)
    p = np.exp(log_p) / np.exp(log_p).sum()
    own = draw.choice(4000, size=200, p=p)
    hidden = 10 * rows[own] + 10 * draw.standard_normal((200, 24)) / np.sqrt(24)
    table = np.concatenate([rows, np.log(p)[:, None]], axis=1).astype(np.float32)
    queries = np.concatenate([hidden, np.ones((200, 1))], axis=1).astype(np.float32)
    best = brute_force(table, queries, "inner").argmax(axis=1)
    _, ids = VectorIndex(table, kind, "inner").search(queries, 1)
    assert (ids[:, 0] == best).mean() >= 0.97


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 120),
    size=st.integers(1, 9),
    k=st.integers(1, 130),
    kind=st.sampled_from(["exact", "ivf", "hnsw"]),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 99),
)
def test_any_shape(rows: int, size: int, k: int, kind: Kind, metric: Metric, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, q = draw.standard_normal((rows, size)), draw.standard_normal((3, size))
    scores, ids = VectorIndex(x.astype("f4"), kind, metric).search(q, k)
    assert scores.shape == ids.shape
    assert scores.shape[0] == 3
    assert scores.shape[1] <= min(k, rows)
    wanted = brute_force(x, q, metric)
    for scores_k, ids_k, wanted_N in zip(scores, ids, wanted, strict=True):
        there = ids_k[ids_k >= 0]
        assert len(set(there.tolist())) == len(there) > 0
        np.testing.assert_allclose(scores_k[ids_k >= 0], wanted_N[there], rtol=1e-3, atol=1e-4)
        assert np.isinf(scores_k[ids_k < 0]).all()
    if kind == "exact":
        assert (ids >= 0).all()
        assert scores.shape[1] == min(k, rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["inner", "l2"])
def test_a_saved_index_searches_the_same(kind: Kind, metric: Metric, tmp_path: Path) -> None:
    rows, queries = clustered(1500)
    file = tmp_path / "rows.faiss"
    index = VectorIndex(rows, kind, metric, file)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.faiss"]
    written = file.stat().st_mtime_ns
    again = VectorIndex(rows, kind, metric, file)
    assert file.stat().st_mtime_ns == written
    for ours, theirs in zip(index.search(queries, 5), again.search(queries, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    rows, _ = clustered(300)
    file = tmp_path / "x.faiss"
    index = VectorIndex(rows, file=file)
    with pytest.raises(HeadlessError, match="other rows or of another kind"):
        VectorIndex(rows[:-1], "exact", "inner", file)
    with pytest.raises(HeadlessError, match="other rows or of another kind"):
        VectorIndex(rows, "exact", "l2", file)
    with pytest.raises(HeadlessError, match="other rows or of another kind"):
        VectorIndex(rows, "ivf", "l2", file)
    file.write_bytes(b"no index")
    with pytest.raises(HeadlessError, match="is damaged"):
        VectorIndex(rows, "exact", "inner", file)
    with pytest.raises(HeadlessError, match="k must be at least 1"):
        index.search(rows[:2], 0)
    with pytest.raises(HeadlessError, match="no rows"):
        VectorIndex(rows[:0])


def test_sizes_decide() -> None:
    assert [automatic_kind(n) for n in (4096, 10**6)] == ["exact", "ivf"]
    assert num_lists(10) == 1
    assert num_lists(10**6) == 2000


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_faiss_and_torch_share_a_process(order: str) -> None:
    """Each brings an OpenMP: products and searches with two threads, in either order."""
    program = (
        f"import {order}\n"
        "import numpy as np\n"
        "from headless.downstream.retrieval.indexes import VectorIndex, load_faiss\n"
        "torch.set_num_threads(2)\n"
        "x = torch.randn(3000, 32)\n"
        "for _ in range(3):\n"
        "    y = (x @ x.T).argmax(1)\n"
        "    _, ids = VectorIndex(x.numpy(), 'ivf', 'l2').search(x.numpy(), 1)\n"
        "    assert (ids[:, 0] == np.arange(3000)).all()\n"
        "print(load_faiss().omp_get_max_threads())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ("1" if sys.platform == "darwin" else "2")


def test_without_faiss_the_line_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(HeadlessError, match=r"pip install 'headless-lm\[faiss\]'"):
        VectorIndex(np.ones((3, 2), np.float32))
