"""Streaming statistics against the whole array at once, over any split and over two ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from headless.analysis.states import moments
from headless.analysis.states.accumulators import (
    FIRST,
    REST,
    StateStatistics,
    Statistics,
    histogram_edges,
)
from headless.geometry import anisotropy

B, T, D, K = 23, 9, 7, 40


def states(seed: int = 0, scale: float = 3.0, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(B, T, D, generator=generator) * scale + mean
    x_BTD[..., 2] *= 20  # a dimension of another size
    x_BTD[:, 0] *= 100  # and a position
    return x_BTD


def accumulate(x_BTD: Tensor, cuts: list[int]) -> StateStatistics:
    metric = StateStatistics(D, T, reservoir=K)
    edges = [0, *sorted(set(cuts)), len(x_BTD)]
    for begin, end in zip(edges, edges[1:], strict=False):
        if end > begin:
            metric.update(x_BTD[begin:end], torch.arange(begin, end))
    return metric


def assert_same(found: Statistics, wanted: Statistics) -> None:
    for name, value in vars(wanted).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-10, atol=1e-9, msg=name)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, B - 1), max_size=8))
def test_streaming_is_batch(cuts: list[int]) -> None:
    x_BTD = states()
    assert_same(accumulate(x_BTD, cuts).compute(), accumulate(x_BTD, []).compute())


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_moments_are_those_of_the_array(mean: float) -> None:
    x_BTD = states(mean=mean)
    s = accumulate(x_BTD, [5, 6]).compute()
    for group, rows in ((FIRST, x_BTD[:, :1]), (REST, x_BTD[:, 1:])):
        x = rows.flatten(0, 1).double().numpy()
        np.testing.assert_allclose(moments.mean(s, group), x.mean(0), rtol=1e-9)
        np.testing.assert_allclose(moments.variance(s, group), x.var(0), rtol=1e-6)
        np.testing.assert_allclose(
            moments.excess_kurtosis(s, group), stats.kurtosis(x, axis=0), atol=1e-3
        )
        np.testing.assert_allclose(
            moments.pooled_excess_kurtosis(s, group), stats.kurtosis(x, axis=None), rtol=1e-4
        )
        np.testing.assert_allclose(moments.rms(s, group), np.sqrt((x**2).mean(0)), rtol=1e-9)
        np.testing.assert_allclose(s.largest_GD[group], np.abs(x).max(0))
        np.testing.assert_allclose(s.outliers_GD[group], (np.abs(x) >= 6).sum(0))
        norms = np.linalg.norm(x, axis=1)
        np.testing.assert_allclose(moments.mean_norm(s, group), norms.mean(), rtol=1e-9)
        cosine = float(anisotropy(torch.from_numpy(x)))
        np.testing.assert_allclose(moments.mean_cosine(s, group), cosine, atol=1e-10)
    rest = x_BTD[:, 1:].flatten(0, 1).double().numpy()
    np.testing.assert_allclose(
        moments.covariance(s), np.cov(rest.T, bias=True), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        moments.eigenvalues(s), np.linalg.eigvalsh(np.cov(rest.T, bias=True))[::-1], rtol=1e-6
    )


def test_the_share_of_a_planted_dimension() -> None:
    x_BTD = torch.randn(B, T, D)
    x_BTD[..., 4] += 50.0
    s = accumulate(x_BTD, []).compute()
    shares = moments.cosine_shares(s)
    assert moments.mean_cosine(s) > 0.95
    assert float(shares[4] / shares.sum()) > 0.99


def test_histogram_and_positions() -> None:
    x_BTD = states()
    s = accumulate(x_BTD, [3]).compute()
    rest = x_BTD[:, 1:].double().numpy().ravel()
    np.testing.assert_array_equal(s.histogram, np.histogram(rest, histogram_edges())[0])
    x = x_BTD.double()
    torch.testing.assert_close(s.position_sum_TD, x.sum(0))
    torch.testing.assert_close(s.position_norm_T, x.norm(dim=-1).sum(0))
    torch.testing.assert_close(s.position_unit_TD, (x / x.norm(dim=-1, keepdim=True)).sum(0))


def test_shorter_sequences_and_extreme_values() -> None:
    metric = StateStatistics(D, T, covariance=False, by_position=False)
    metric.update(torch.full((2, 4, D), 1e9), torch.arange(2))
    metric.update(torch.zeros(1, 1, D), torch.arange(1))
    s = metric.compute()
    assert s.position_count_T.tolist() == [3, 2, 2, 2, 0, 0, 0, 0, 0]
    assert int(s.histogram[-1]) == 2 * 3 * D  # beyond the end: the last bin
    assert s.outer_DD is None
    with pytest.raises(ValueError, match="covariance"):
        moments.covariance(s)


def test_the_reservoir_is_a_sample_without_first_positions() -> None:
    x_BTD = states()
    s = accumulate(x_BTD, [7, 15]).compute()
    assert s.sample_KD.shape == (K, D)
    assert int(s.sample_positions_K.min()) >= 1
    pairs = list(zip(s.sample_sequences_K.tolist(), s.sample_positions_K.tolist(), strict=True))
    assert len(set(pairs)) == K
    assert pairs == sorted(pairs)
    for row, (sequence, position) in zip(s.sample_KD, pairs, strict=True):
        torch.testing.assert_close(row, x_BTD[sequence, position])
    few = StateStatistics(D, T, reservoir=10_000)
    few.update(x_BTD, torch.arange(B))
    assert len(few.compute().sample_KD) == B * (T - 1)


def test_the_sample_is_even() -> None:
    """Every position and every half of the corpus is drawn about as often as it occurs."""
    metric = StateStatistics(1, 65, covariance=False, by_position=False, reservoir=2000)
    for begin in range(0, 1000, 100):
        metric.update(torch.ones(100, 65, 1), torch.arange(begin, begin + 100))
    s = metric.compute()
    by_position = np.bincount(s.sample_positions_K, minlength=65)[1:]
    assert stats.chisquare(by_position).pvalue > 1e-3
    by_block = np.bincount(s.sample_sequences_K // 100, minlength=10)
    assert stats.chisquare(by_block).pvalue > 1e-3


def test_two_ranks_are_one() -> None:
    """What torchmetrics does between processes: each state reduced by its own function."""
    x_BTD = states()
    ranks = [accumulate(x_BTD[:9], [4]), StateStatistics(D, T, reservoir=K)]
    ranks[1].update(x_BTD[9:], torch.arange(9, B))
    merged = StateStatistics(D, T, reservoir=K)
    for name in merged._defaults:
        values = [getattr(rank, name) for rank in ranks]
        reduce = {"sum": torch.stack(values).sum(0) if name not in ("keys", "kept") else None}
        if name in ("keys", "kept"):
            setattr(merged, name, torch.cat(values))
        elif name == "largest_GD":
            setattr(merged, name, torch.stack(values).amax(0))
        else:
            setattr(merged, name, reduce["sum"])
    assert_same(merged.compute(), accumulate(x_BTD, []).compute())


def test_what_position_and_context_explain() -> None:
    generator = torch.Generator().manual_seed(1)
    sequences, length, width = 400, 33, 16

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    position, context = normal(1, length, width) * 2, normal(sequences, 1, width)
    x_BTD = position + context + normal(sequences, length, width) + 5
    metric = StateStatistics(width, length)
    metric.update(x_BTD, torch.arange(sequences))
    shares = moments.variance_shares(metric.compute())
    parts = {"position": float(position[:, 1:].var(dim=1).mean()), "context": 1.0, "rest": 1.0}
    total = sum(parts.values())
    for name, value in parts.items():
        assert shares[name] == pytest.approx(value / total, abs=0.03), name
    noise = StateStatistics(width, length)
    noise.update(normal(sequences, length, width), torch.arange(sequences))
    shares = moments.variance_shares(noise.compute())
    assert abs(shares["position"]) < 0.003
    assert abs(shares["context"]) < 0.003


def test_a_reset_begins_anew() -> None:
    torch.manual_seed(0)
    metric = StateStatistics(8, 5, reservoir=4)
    metric.update(torch.randn(3, 5, 8), torch.arange(3))
    before = metric.compute()
    metric.reset()
    assert not float(metric.powers_G4D.abs().sum())
    torch.manual_seed(0)
    metric.update(torch.randn(3, 5, 8), torch.arange(3))
    after = metric.compute()
    for name, value in vars(before).items():
        assert torch.equal(value, getattr(after, name)), name
