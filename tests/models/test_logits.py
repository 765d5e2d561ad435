"""Logits of some positions alone, and what of a large table is looked at."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, Gemma2Config

from headless.analysis.interventions.ablation import token_loss
from headless.analysis.session import Session, Subject, rows_of
from headless.analysis.weights.tables import tables_of
from headless.models import logits
from headless.models.logits import logits_at

V = 61
SIZES: dict[str, Any] = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 16}


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    if family == "bert":
        return AutoModelForMaskedLM.from_config(BertConfig(**SIZES)).double().eval()
    config = Gemma2Config(**SIZES, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.3)
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.mark.parametrize("family", ["gemma2", "bert"])
def test_logits_of_some_positions_are_those_among_all(family: str) -> None:
    model, ids_BT = model_of(family), torch.randint(4, V, (3, 11))
    chosen_BT = ids_BT > V // 2
    with torch.no_grad():
        expected = model(input_ids=ids_BT).logits[chosen_BT]
        torch.testing.assert_close(logits_at(model, ids_BT, chosen_BT), expected)
        assert logits_at(model, ids_BT, ids_BT < 0).shape == (0, V)
    assert type(model.get_output_embeddings()) is nn.Linear  # as it was


@pytest.mark.parametrize("rows", [100, 7])
def test_a_loss_is_that_of_evenly_spaced_tokens(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all tokens where their logits fit: exact over the whole vocabulary, with its gradient."""
    model, ids_BT = model_of("gemma2"), torch.randint(4, V, (3, 11))
    monkeypatch.setattr(logits, "LOGITS", rows * V)
    weights = [*model.base_model.parameters()]
    every = model(input_ids=ids_BT).logits[:, :-1].flatten(0, 1).float()
    taken = torch.linspace(0, 29, min(rows, 30)).long()
    expected = nn.functional.cross_entropy(every[taken], ids_BT[:, 1:].flatten()[taken])
    loss = token_loss(model, ids_BT)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    pairs = (torch.autograd.grad(x, weights, allow_unused=True) for x in (loss, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_large_table_is_looked_at_by_every_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma2")
    lab = Session(Subject("planted", model))
    table_VD = model.get_input_embeddings().weight
    assert lab.table_rows == slice(None, None, 1)
    monkeypatch.setattr("headless.analysis.session.TABLE_ROWS", 20)
    assert rows_of(table_VD).step == 4
    assert torch.equal(lab.tables["embedding"], table_VD[::4])
    assert torch.equal(lab.whole_tables["embedding"], table_VD)
    (table,) = tables_of(model.base_model, nulls=False).values()
    assert table.shape == (16, 16)
    assert float(table.values_R.square().sum()) == pytest.approx(
        float(table_VD.detach()[::4].square().sum())
    )
