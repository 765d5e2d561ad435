"""Blocks in another order: the model computes in that order, and is afterwards as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import draw_all, text_lab
from transformers import AutoModelForCausalLM, GPT2Config

from headless.analysis.interventions.permutation import permutation, random_order, reordered
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, blocks, build_backbone

V, DEPTH = 50, 4


def model_of(family: str, depth: int = DEPTH) -> Any:
    torch.manual_seed(0)
    backbone: Any = build_backbone(
        BackboneConfig(
            model_type=family, hidden_size=16, num_hidden_layers=depth, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=64,
        ),
        V,
    )  # fmt: skip
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return backbone.eval()


def test_random_orders() -> None:
    drawn = [random_order(4, seed=i) for i in range(40)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in drawn)
    assert [0, 1, 2, 3] not in drawn
    assert drawn[3] == random_order(4, seed=3)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert", "distilbert"])
def test_the_model_computes_in_that_order(family: str) -> None:
    model = model_of(family)
    ids, own = torch.randint(V, (2, 12)), blocks(model)
    before = model(input_ids=ids).last_hidden_state
    order = [2, 0, 3, 1]
    with reordered(model, order):
        assert all(block is own[i] for i, block in zip(order, blocks(model), strict=True))
        assert not torch.allclose(model(input_ids=ids).last_hidden_state, before, atol=1e-3)
        with reordered(model, [order.index(i) for i in range(DEPTH)]):
            torch.testing.assert_close(model(input_ids=ids).last_hidden_state, before)
    assert torch.equal(model(input_ids=ids).last_hidden_state, before)
    with pytest.raises(KeyError), reordered(model, order):
        raise KeyError
    assert torch.equal(model(input_ids=ids).last_hidden_state, before)


def test_a_finding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=DEPTH, n_head=2, vocab_size=V, n_positions=32)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(V, (4, 16))
    found = permutation(text_lab(model, ids))
    assert found is not None
    s = found.scalars
    assert s["permutation/identity/cosine"] == pytest.approx(1)
    assert s["permutation/identity/loss_change"] == 0
    with torch.no_grad():
        own = float(model(input_ids=ids, labels=ids).loss)
        with reordered(model, [1, 0, 2, 3]):
            changed = float(model(input_ids=ids, labels=ids).loss)
    assert s["permutation/swap_0/loss_change"] == pytest.approx(changed - own, abs=1e-5)
    draw_all(found, tmp_path)


def test_without_a_head() -> None:
    text_NT = torch.randint(V, (2, 12))
    found = permutation(text_lab(model_of("llama"), text_NT, has_head=False))
    assert found is not None
    assert "permutation/loss" not in found.scalars
    assert found.scalars["permutation/reverse/cosine"] < 0.999
    with pytest.raises(HeadlessError, match="two blocks"):
        permutation(text_lab(model_of("llama", depth=1), text_NT, has_head=False))
