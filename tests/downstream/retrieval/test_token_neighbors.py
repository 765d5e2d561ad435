"""Nearest tokens and likeliest next tokens against plain float64."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import gpt_neox

from headless.data.stream import open_dataset
from headless.downstream.loading import load
from headless.downstream.retrieval.contexts import nearest_contexts, view_context
from headless.downstream.retrieval.store import build_store
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

pytest.importorskip("faiss")


@pytest.mark.parametrize("table", ["input", "output"])
@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_nearest_tokens_are_those_of_the_table(dataset: Path, table: Any, metric: Any) -> None:
    lm = gpt_neox(dataset)
    rows_VD = torch.from_numpy(lm.table(table)).double()
    token = lm.tokenizer.encode(" king")[0]
    if metric == "cosine":
        scores_V = F.cosine_similarity(rows_VD, rows_VD[token : token + 1])
    elif metric == "inner":
        scores_V = rows_VD @ rows_VD[token]
    else:
        scores_V = -(rows_VD - rows_VD[token]).square().sum(1)
    scores_V[token] = -torch.inf
    wanted = scores_V.topk(5)
    found = lm.neighbors(token, k=5, table=table, metric=metric)[0]
    assert [near["token_id"] for near in found] == wanted.indices.tolist()
    sign = -1 if metric == "l2" else 1
    assert [sign * near["score"] for near in found] == pytest.approx(
        wanted.values.tolist(), rel=1e-4
    )
    counts = lm.unigram_count_V
    assert counts is not None
    assert [near["count"] for near in found] == counts[wanted.indices].tolist()
    assert [near["text"] for near in found] == [lm.tokenizer.decode([i]) for i in wanted.indices]


def test_an_analogy_is_a_sum_of_unit_rows(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    rows_VD = F.normalize(torch.from_numpy(lm.table("input")).double(), dim=1)
    scores_V = rows_VD @ (rows_VD[70] - rows_VD[71] + rows_VD[72])
    scores_V[[70, 71, 72]] = -torch.inf
    found = lm.neighbors([(70, 1.0), (71, -1.0), (72, 1.0)], 9, k=4)
    assert [near["token_id"] for near in found[0]] == scores_V.topk(4).indices.tolist()
    assert len(found[1]) == 4
    assert 9 not in [near["token_id"] for near in found[1]]


def test_more_neighbours_than_there_are(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    assert len(lm.neighbors(9, k=10_000)[0]) == 319


def test_a_context_gives_the_models_own_probabilities(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    ids_1T = torch.tensor([lm.tokenizer.encode("the king loves")])
    log_V = lm.model(input_ids=ids_1T).logits[0, -1].double().log_softmax(-1)
    view = view_context(lm, "the king loves", 6, min_count=5)
    best = log_V.topk(6)
    assert [token["token_id"] for token in view.likeliest] == best.indices.tolist()
    found = [token["log_probability"] for token in view.likeliest]
    assert found == pytest.approx(best.values.tolist(), abs=1e-4)
    # The likeliest are the largest inner products with [w ; b].
    model: Any = lm.model
    linear = model.get_output_embeddings()
    products_V = linear.weight @ view.hidden_D + linear.bias
    assert products_V.topk(6).indices.tolist() == best.indices.tolist()
    counts_V = lm.unigram_count_V
    assert counts_V is not None
    pmi_V = (log_V - log_unigram(counts_V).double()).masked_fill(counts_V < 5, -torch.inf)
    assert view.specific is not None
    assert [token["token_id"] for token in view.specific] == pmi_V.topk(6).indices.tolist()
    found = [float(token["pmi"]) for token in view.specific]
    assert found == pytest.approx(pmi_V.topk(6).values.tolist(), abs=1e-4)
    assert view_context(replace(lm, unigram_count_V=None), "the king").specific is None
    hidden_1TD, _ = lm.last_states(torch.tensor([[lm.tokenizer.eos_token_id]]))
    assert torch.equal(view_context(lm, "").hidden_D, hidden_1TD[0, -1].float())
    written = view_context(lm, lm.tokenizer.eos_token)  # its name is text
    assert not torch.equal(written.hidden_D, hidden_1TD[0, -1].float())


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


def test_a_masked_model_is_asked_at_its_mask(masked_run: Path) -> None:
    lm = load(masked_run)
    view = view_context(lm, "the king [MASK] the sea", 5)
    wanted = lm.fill_masks("the king [MASK] the sea")[0]
    assert [token["text"] for token in view.likeliest] == [text for text, _ in wanted]
    with pytest.raises(HeadlessError, match="exactly once"):
        view_context(lm, "the king loves the sea")
    with pytest.raises(HeadlessError, match="exactly once"):
        view_context(lm, "the [MASK] loves the [MASK]")


def test_a_token_is_named_by_its_text(dataset: Path) -> None:
    lm = gpt_neox(dataset)
    assert lm.token_id(" king") == lm.tokenizer.encode(" king")[0]
    assert lm.token_id("<|endoftext|>") == lm.tokenizer.eos_token_id
    with pytest.raises(HeadlessError, match=r"is 2 tokens: ' king' \(\d+\), 's' \(\d+\); name one"):
        lm.token_id(" kings")
    with pytest.raises(HeadlessError, match="or ' king', which is one"):
        lm.token_id("king")
    with pytest.raises(HeadlessError, match="the token is empty"):
        lm.token_id("")
    with pytest.raises(HeadlessError, match="token_id must be from 0 to 319, got 320"):
        lm.token_id(320)
    with pytest.raises(HeadlessError, match="k must be at least 1"):
        lm.neighbors(3, k=0)
    with pytest.raises(HeadlessError, match="shorten it"):
        view_context(lm, "the king " * 50)
