"""Ranks of items: against float64 and torchmetrics, through an index, under every head."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from headless.downstream.evaluation import catalogue
from headless.downstream.evaluation.catalogue import (
    CUTOFFS,
    Histories,
    chunked_ranks,
    evaluate_catalogue,
    found_ranks,
    ranker,
    scores_of,
)
from headless.downstream.evaluation.tasks import Task
from headless.downstream.retrieval.indexes import VectorIndex
from headless.errors import HeadlessError
from headless.models.modeling_headless import HeadlessHead

N, V, D = 40, 300, 8
ROWS = torch.arange(N)


def states() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states that often have the target among the best."""
    weight_VD, bias_V = torch.randn(V, D), torch.randn(V)
    targets_N = torch.randint(V, (N,))
    return weight_VD[targets_N] + torch.randn(N, D), targets_N, weight_VD, bias_V


@pytest.mark.parametrize("scores", [N, 64 * N, 10**9])  # one item, a part or all at a time
def test_chunks_give_the_metrics_of_torchmetrics(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "SCORES", scores)
    hidden_ND, targets_N, weight_VD, bias_V = states()
    scores_NV = hidden_ND.double() @ weight_VD.double().T + bias_V.double()
    rank_N = chunked_ranks(weight_VD, bias_V, hidden_ND, targets_N)
    own_N1 = scores_NV.gather(1, targets_N[:, None])
    assert torch.equal(rank_N, (scores_NV >= own_N1).sum(dim=1))
    found = scores_of(rank_N)
    is_target_NV = torch.zeros(N, V, dtype=torch.bool)
    is_target_NV[ROWS, targets_N] = True
    of_query_NV = ROWS[:, None].expand(N, V)
    for k in CUTOFFS:
        pairs = {"hr": RetrievalHitRate(top_k=k), "ndcg": RetrievalNormalizedDCG(top_k=k)}
        for name, metric in pairs.items():
            expected = metric(scores_NV, is_target_NV, indexes=of_query_NV).double()
            assert 0.05 < expected
            if (name, k) != ("ndcg", 1):  # which is HR@1
                ours = torch.tensor(found[f"{name}@{k}"], dtype=torch.float64).mean()
                assert torch.isclose(ours, expected, rtol=1e-6)


def test_ties_count_against_the_target_and_what_is_no_number_too() -> None:
    hidden_ND, targets_N, weight_VD, _ = states()
    assert chunked_ranks(torch.zeros(V, D), None, hidden_ND, targets_N).tolist() == [V] * N
    broken_VD = weight_VD.clone()
    broken_VD[(targets_N[0] + 1) % V] = torch.nan
    before = chunked_ranks(weight_VD, None, hidden_ND[:1], targets_N[:1])
    assert chunked_ranks(broken_VD, None, hidden_ND[:1], targets_N[:1]) >= before
    with pytest.raises(HeadlessError, match="not finite"):
        chunked_ranks(weight_VD, None, hidden_ND * torch.nan, targets_N)


def test_an_index_finds_the_same_ranks() -> None:
    hidden_ND, targets_N, weight_VD, bias_V = states()
    table = torch.cat([weight_VD, bias_V[:, None]], dim=1).numpy()
    exact = chunked_ranks(weight_VD, bias_V, hidden_ND, targets_N)
    inside = exact <= max(CUTOFFS)
    assert 5 < int(inside.sum()) < N
    found = found_ranks(VectorIndex(table), hidden_ND, targets_N)
    assert torch.equal(found, exact.where(inside, V))


def model_of(head: torch.nn.Module) -> Any:
    """What `ranker` asks of a model: its head, and whether it is a matrix and a bias."""
    config = SimpleNamespace(vocab_size=V + 1, eos_token_id=V)
    model: Any = SimpleNamespace(config=config, get_output_embeddings=lambda: head)
    hidden = torch.randn(1, 4, D)
    return SimpleNamespace(
        model=model, task="causal", name="it", last_states=lambda ids: (hidden, head(hidden))
    )


@pytest.mark.parametrize("form", ["linear", "own_excess", "normalize"])
@torch.no_grad()
def test_the_end_of_a_sequence_is_no_candidate_under_any_head(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "SCORES", 3 * V)
    hidden_ND, targets_N, weight_VD, bias_V = states()
    parts = {"bias": True, "transform": False, "normalize": False, "own_excess": False}
    config = SimpleNamespace(
        hidden_size=D, vocab_size=V + 1, headless_head=parts | {form: True} | {"linear": None}
    )
    head: Any = HeadlessHead(config)
    head.weight.copy_(torch.cat([weight_VD, 9 * hidden_ND[:1]]))  # the end would be the best
    head.bias.copy_(torch.cat([bias_V, torch.tensor([99.0])]))
    if form == "own_excess":
        head.own_excess.copy_(torch.rand(V + 1) * 1e3)
    logits_NV = head(hidden_ND)[:, :V]
    expected = (logits_NV >= logits_NV.gather(1, targets_N[:, None])).sum(dim=1)
    lm = model_of(head)
    ranks = ranker(lm, V, None)(hidden_ND, targets_N)
    assert torch.equal(ranks, expected)
    if form == "linear":
        found = ranker(lm, V, "exact")(hidden_ND, targets_N)
        assert torch.equal(found, expected.where(expected <= max(CUTOFFS), V))
    else:
        with pytest.raises(HeadlessError, match="more than a matrix and a bias"):
            ranker(lm, V, "exact")


@pytest.mark.parametrize(("tokenizer", "num_items"), [(object(), V), (None, V - 1)])
def test_a_model_of_text_or_of_other_items_ranks_none(tokenizer: Any, num_items: int) -> None:
    lm = model_of(torch.nn.Linear(D, V + 1))
    lm.tokenizer, lm.place = tokenizer, "it"
    histories = Histories(Task("catalogue", "clicks"), [([num_items, 1], 2)], num_items, 0, "")
    with pytest.raises(HeadlessError, match=f"not trained on sequences of {num_items} items"):
        evaluate_catalogue(lm, histories)
