"""Zipf's law and planted relations between frequency and geometry."""

import warnings

import numpy as np
import pytest
import torch

from headless.analysis.frequency import frequency
from headless.analysis.frequency_measure import groups_of, zipf
from headless.errors import HeadlessError

V, D = 600, 16


def counts_of() -> torch.Tensor:
    counts = (20000 / torch.arange(1, V + 1).double()).long()
    counts[-40:] = 0
    return counts[torch.randperm(V, generator=torch.Generator().manual_seed(0))]


def degenerate(strength: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rarer a token, the more it points one way; states point the other way."""
    counts = counts_of()
    generator = torch.Generator().manual_seed(1)
    common = torch.nn.functional.one_hot(torch.tensor(3), D).float()
    rare = 1 - (1 + counts).log() / counts.max().log()
    table = torch.randn(V, D, generator=generator) * 0.3 + strength * rare[:, None] * common
    states = torch.randn(200, D, generator=generator) - 3 * common
    return table, counts, states


def test_zipf() -> None:
    slope, r2 = zipf(np.round(1e9 / np.arange(1, 3000) ** 1.2))
    assert (slope, r2) == pytest.approx((-1.2, 1), abs=1e-3)


def test_groups_are_of_equal_size_and_in_order() -> None:
    counts = counts_of().numpy()
    unseen, *groups = groups_of(counts)
    assert len(unseen) == (counts == 0).sum()
    assert sorted(np.concatenate([unseen, *groups])) == list(range(V))
    assert {len(g) for g in groups} <= {len(groups[0]), len(groups[0]) - 1}
    assert all(counts[a].max() <= counts[b].min() for a, b in zip(groups, groups[1:], strict=False))


def test_tokens_of_one_count_are_in_no_order() -> None:
    """Numbers of tokens are an order, too: a group of equal counts must not be the lowest ones."""
    counts = np.ones(1000, dtype=np.int64)
    _, first, *_ = groups_of(counts)
    assert 300 < first.mean() < 700
    assert first.max() > 800
    assert list(groups_of(counts)[1]) == list(first)


def test_planted_degeneration_is_gaos() -> None:
    table, counts, states = degenerate(3.0)
    found = frequency({"embedding": table}, counts, hidden_ND=states)
    s = found.scalars
    assert [claim.agrees for claim in found.claims] == [True, True, True]
    assert s["frequency/embedding/rho_cos_mean"] < -0.4
    assert s["frequency/embedding/rho_dot_state"] > 0.4
    assert s["frequency/embedding/rare_against_states"] > 0.95
    assert s["frequency/embedding/rare_cos_mean_state"] < -0.9
    assert s["frequency/embedding/anisotropy_01"] > s["frequency/embedding/anisotropy_10"]
    assert s["frequency/unseen"] >= 40


def test_without_a_relation_there_is_none() -> None:
    table, counts, states = degenerate(0.0)
    found = frequency({"embedding": table}, counts, hidden_ND=states)
    s = found.scalars
    assert abs(s["frequency/embedding/rho_norm"]) < 0.12
    assert not found.claims[0].agrees
    assert s["frequency/embedding/rho_null"] < 0.15


def test_two_tables_and_their_pictures() -> None:
    table, counts, states = degenerate(3.0)
    tables = {"embedding": torch.randn(V + 8, D), "head": table}  # rows beyond the vocabulary
    found = frequency(tables, counts, hidden_ND=states)
    assert found.claims[0].agrees  # of the head, the last one
    assert frequency(tables, counts).claims[1].agrees is None
    names = [picture.name for picture in found.pictures]
    assert len(set(names)) == len(names) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in found.pictures:
            picture.draw().draw_without_rendering()


def test_what_does_not_fit() -> None:
    with pytest.raises(HeadlessError, match="own tokenizer"):
        frequency({"embedding": torch.randn(10, D)}, counts_of())
    with pytest.raises(HeadlessError, match="longer one"):
        frequency({"embedding": torch.randn(V, D)}, torch.zeros(V))
