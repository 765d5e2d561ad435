"""Attention without a mask tensor: the same numbers, and what a compiled model asks for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from headless.models import attention
from headless.models.attention import CAUSAL, needs_mask, without_mask
from headless.models.backbone import BackboneConfig, build_backbone, hidden_states
from headless.models.presets import PRESETS

V, T = 60, 24
WINDOW = {"sliding_window": 8}
FAMILIES = sorted({preset["model_type"] for preset in PRESETS.values()} | CAUSAL)
WINDOWED = {
    "mistral": WINDOW,
    "gemma3_text": WINDOW,
    "modernbert-decoder": {"local_attention": 16},  # 8 to each side
    "qwen3": WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
}


def small(family: str, **extra: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 2 * T}
    config = BackboneConfig(model_type=family, **sizes, extra=extra)  # type: ignore[arg-type]
    return build_backbone(config, V, bos_token_id=0, eos_token_id=0).eval()


def tokens() -> Tensor:
    return torch.randint(0, V, (2, T), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def as_transformers(backbone: Any) -> Tensor:
    return backbone(input_ids=tokens(), use_cache=False).last_hidden_state


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_hidden_states_are_those_with_a_mask(family: str) -> None:
    backbone = small(family)
    assert needs_mask(backbone, T) == (family not in CAUSAL)
    assert torch.equal(hidden_states(backbone, tokens()), as_transformers(backbone))
    assert backbone.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", WINDOWED)
@torch.no_grad()
def test_a_window_is_kept(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = small(family, **WINDOWED[family])
    expected = as_transformers(backbone)
    assert not needs_mask(backbone, 8)
    assert needs_mask(backbone, 9)
    assert torch.equal(hidden_states(backbone, tokens()), expected)
    monkeypatch.setattr(attention, "needs_mask", lambda *_: False)
    assert not torch.allclose(hidden_states(backbone, tokens()), expected, atol=1e-3)


@torch.no_grad()
def test_a_decoder_that_is_told_to_see_both_sides_does() -> None:
    usual, backbone = small("llama"), small("llama")
    backbone.config.is_causal = False
    assert torch.equal(hidden_states(backbone, tokens()), as_transformers(backbone))
    assert not torch.equal(hidden_states(usual, tokens()), as_transformers(backbone))


@torch.no_grad()
def test_who_has_padding_keeps_the_mask() -> None:
    """The name without a mask is a call's: an error does not leave it behind."""
    backbone = small("llama")
    mask_BT = torch.ones(2, T, dtype=torch.long).index_fill(1, torch.tensor([0]), 0)
    padded = backbone(input_ids=tokens(), attention_mask=mask_BT).last_hidden_state
    with pytest.raises(IndexError):
        hidden_states(backbone, tokens() + V)
    again = backbone(input_ids=tokens(), attention_mask=mask_BT).last_hidden_state
    assert torch.equal(again, padded)
    assert not torch.allclose(padded[:, 1:], hidden_states(backbone, tokens())[:, 1:], atol=1e-3)
    eager = small("llama")
    eager.set_attn_implementation("eager")
    with without_mask(eager, T):
        assert eager.config._attn_implementation == "eager"


def calls_of(backbone: Any) -> list[tuple[bool, bool]]:
    """Of each call of torch's attention in a traced graph: whether it has a mask, and is causal."""
    found = []

    def backend(graph: Any, _: Any) -> Any:
        for node in graph.graph.nodes:
            if "scaled_dot_product_attention" in str(node.target):
                found.append((node.kwargs["attn_mask"] is not None, node.kwargs["is_causal"]))
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(hidden_states, fullgraph=True, backend=backend)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(backbone, tokens()), as_transformers(backbone))
    return found


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3"])
def test_compiled_attention_is_causal_and_has_no_mask(family: str) -> None:
    assert calls_of(small(family)) == [(False, True)] * 2


def test_a_compiled_window_is_a_mask() -> None:
    assert calls_of(small("modernbert-decoder", local_attention=16)) == [(True, False)] * 2
