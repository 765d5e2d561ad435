"""Blocks in another order: the model itself stays, and the copy computes in that order."""

import warnings
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from headless.analysis.gradients import token_loss
from headless.analysis.permutation import block_order, block_permutation, reorder, sharing_copy
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, blocks, build_backbone

V, DEPTH = 50, 4


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    backbone: Any = build_backbone(
        BackboneConfig(
            model_type=family, hidden_size=16, num_hidden_layers=DEPTH, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=64,
        ),
        V,
    )  # fmt: skip
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return backbone.eval()


def test_orders() -> None:
    assert block_order(4, "identity") == [0, 1, 2, 3]
    assert block_order(4, "reverse") == [3, 2, 1, 0]
    assert block_order(4, "swap", swap=(1, 3)) == [0, 3, 2, 1]
    drawn = [block_order(4, "random", seed=i) for i in range(40)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in drawn)
    assert [0, 1, 2, 3] not in drawn
    assert drawn[3] == block_order(4, "random", seed=3)
    for wrong in (
        {"strategy": "swap"},
        {"strategy": "swap", "swap": (0, 4)},
        {"strategy": "sideways"},
    ):
        with pytest.raises(HeadlessError):
            block_order(4, **wrong)  # type: ignore[arg-type]


def permuted(model: Any, order: Any) -> Any:
    changed = sharing_copy(model)
    reorder(changed, list(order))
    return changed


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert", "distilbert"])
def test_the_copy_computes_in_that_order(family: str) -> None:
    model = model_of(family)
    ids = torch.randint(V, (2, 12))
    before = model(input_ids=ids).last_hidden_state
    order = [2, 0, 3, 1]
    changed = permuted(model, order)
    for place, block in zip(order, blocks(changed), strict=True):
        for a, b in zip(blocks(model)[place].parameters(), block.parameters(), strict=True):
            assert a is b  # no second copy of the weights
    assert not torch.allclose(changed(input_ids=ids).last_hidden_state, before, atol=1e-3)
    assert torch.equal(model(input_ids=ids).last_hidden_state, before)
    back = permuted(changed, [order.index(i) for i in range(DEPTH)])
    torch.testing.assert_close(back(input_ids=ids).last_hidden_state, before)
    assert torch.equal(permuted(model, range(DEPTH))(input_ids=ids).last_hidden_state, before)


def test_a_finding() -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=DEPTH, n_head=2, vocab_size=V, n_positions=32)
    model: Any = AutoModelForCausalLM.from_config(config)
    batches = [torch.randint(V, (3, 16)) for _ in range(2)]
    found = block_permutation(
        model, batches, loss=lambda m, ids: float(token_loss(m)(ids).detach())
    )
    s = found.scalars
    assert s["permutation/identity/cosine"] == pytest.approx(1)
    assert s["permutation/identity/loss_change"] == 0
    changed = permuted(model, [1, 0, 2, 3]).eval()
    model.eval()
    with torch.no_grad():
        a, b = (m(input_ids=batches[0], labels=batches[0]).loss for m in (changed, model))
        c, d = (m(input_ids=batches[1], labels=batches[1]).loss for m in (changed, model))
    assert s["permutation/swap_0/loss_change"] == pytest.approx(float(a + c - b - d) / 2, abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in found.pictures:
            picture.draw().draw_without_rendering()


def test_without_a_head() -> None:
    found = block_permutation(model_of("llama"), [torch.randint(V, (2, 12))])
    assert "permutation/loss" not in found.scalars
    assert found.scalars["permutation/reverse/cosine"] < 0.999
    with pytest.raises(HeadlessError, match="two blocks"):
        block_permutation(model_of("llama"), [])
