"""Zipf's law and planted relations between frequency and geometry."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import draw_all, states_lab

from headless.analysis.corpus.frequency import frequency, groups_of, zipf
from headless.analysis.courses import Checkpoints
from headless.analysis.record import Finding
from headless.errors import HeadlessError
from headless.geometry import unit

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


def finding(
    tables: dict[str, torch.Tensor], counts: torch.Tensor, states: torch.Tensor, every: int = 1
) -> Finding:
    """Of every so many rows."""
    some = {name: table[::every] for name, table in tables.items()}
    rows = slice(None, None, every)
    lab = states_lab({}, some, last_states=states, whole_tables=tables, table_rows=rows)
    lab.subject.counts_V = counts
    found = frequency(lab)
    assert found is not None
    return found


def test_zipf() -> None:
    slope, _, r2 = zipf(np.round(1e9 / np.arange(1, 3000) ** 1.2))
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


@pytest.mark.parametrize("every", [1, 3])
def test_planted_degeneration_is_gaos(every: int) -> None:
    table, counts, states = degenerate(3.0)
    found = finding({"embedding": table}, counts, states, every)
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
    found = finding({"embedding": table}, counts, states)
    s = found.scalars
    assert abs(s["frequency/embedding/rho_norm"]) < 0.12
    assert not found.claims[0].agrees
    assert s["frequency/embedding/rho_null"] < 0.15


def test_two_tables_and_their_pictures(tmp_path: Path) -> None:
    table, counts, states = degenerate(3.0)
    tables = {"embedding": torch.randn(V + 8, D), "head": table}  # rows beyond the vocabulary
    found = finding(tables, counts, states)
    assert found.claims[0].agrees  # of the head, the last one
    names = [picture.name for picture in found.pictures]
    assert len(set(names)) == len(names) == 3
    draw_all(found, tmp_path)


def test_distance_from_the_first_weights() -> None:
    """Rows that moved the farther, the more often they occur."""
    counts = counts_of()
    first = torch.nn.Embedding(V, D)
    with torch.no_grad():
        table = first.weight + (counts[:, None] / D**0.5)
    lab = states_lab({}, {"embedding": table}, last_states=torch.randn(20, D), counts_V=counts)
    lab.subject.initial = SimpleNamespace(get_input_embeddings=lambda: first)
    s = frequency(lab).scalars
    assert s["frequency/embedding/moved_00"] == 0
    assert s["frequency/embedding/rho_moved"] == pytest.approx(1, abs=1e-3)
    seen = counts[counts > 0].sort().values.double()
    assert s["frequency/embedding/moved_10"] == pytest.approx(float(seen[-56:].mean()), rel=1e-4)


def test_size_of_updates_since_the_checkpoint_before() -> None:
    """Rows that each step of four moved by a hundredth of their count."""
    counts = counts_of()
    table = torch.randn(V, D)
    lab = states_lab({}, {"embedding": table}, last_states=torch.randn(20, D), counts_V=counts)
    before = table - 4 * (counts[:, None] / 100) * unit(torch.randn(V, D))
    lab.checkpoints = Checkpoints({}, {}, before, steps_since=4)
    s = frequency(lab).scalars
    assert s["frequency/embedding/update_00"] == 0
    assert s["frequency/embedding/rho_update"] == pytest.approx(1, abs=1e-3)
    seen = counts[counts > 0].sort().values.double()
    expected = float(seen[-56:].mean()) / 100
    assert s["frequency/embedding/update_10"] == pytest.approx(expected, rel=1e-3)


def test_what_does_not_fit() -> None:
    states = torch.randn(20, D)
    with pytest.raises(HeadlessError, match="own tokenizer"):
        finding({"embedding": torch.randn(10, D)}, counts_of(), states)
    with pytest.raises(HeadlessError, match="longer one"):
        finding({"embedding": torch.randn(V, D)}, torch.arange(V) // (V - 5), states)
    with pytest.raises(HeadlessError, match="counts are not known"):
        finding({"embedding": torch.randn(V, D)}, torch.zeros(V), states)
