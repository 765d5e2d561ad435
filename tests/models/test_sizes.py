"""What is left out follows from width and heads, in every family."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig

from headless.errors import HeadlessError
from headless.models.backbone import (
    PRESETS,
    BackboneConfig,
    backbone_config,
    build_backbone,
    hidden_states,
    num_parameters,
    resolve,
)
from headless.models.sizes import follow

SMALL = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
# Widths of the MLP in widths, weights of the MLP, heads a key-value head, width of a head.
RATIOS = {
    "gpt2": (4, 2, 1, 32),
    "gpt_neo": (4, 2, 1, 32),
    "gpt_neox": (4, 2, 1, 32),
    "llama": (2.6875, 3, 1, 32),
    "mistral": (3.5, 3, 2, 32),
    "qwen2": (5.375, 3, 1, 32),
    "qwen3": (5.375, 3, 1, 32),
    "gemma": (8, 3, 1, 40),
    "gemma2": (4, 3, 2, 32),
    "phi": (4, 2, 1, 32),
    "olmo": (2.6875, 3, 1, 32),
    "bert": (4, 2, 1, 32),
    "distilbert": (4, 2, 1, 32),
}


@pytest.mark.parametrize("family", RATIOS)
def test_a_small_one_is_small(family: str) -> None:
    """As many weights as the family's ratios give; norms, biases and positions left aside."""
    config = BackboneConfig(model_type=family, **SMALL)  # type: ignore[arg-type]
    backbone = build_backbone(config, 100, bos_token_id=0, eos_token_id=0)
    mlp, matrices, heads_a_kv_head, head = RATIOS[family]
    attention = 64 * 2 * head * (2 + 2 / heads_a_kv_head)
    expected = 100 * 64 + 2 * (attention + matrices * mlp * 64 * 64)
    positions = sum(
        p.numel() for n, p in backbone.named_parameters() if "position" in n or "wpe" in n
    )
    assert num_parameters(backbone) - positions == pytest.approx(expected, rel=0.03)
    assert hidden_states(backbone, torch.arange(6)[None]).shape == (1, 6, 64)


def test_experts_are_small_too() -> None:
    """Of the family 768 and 2,048 wide, for a width of 2,048: 128 experts would be all of it."""
    fields, _ = resolve(BackboneConfig(model_type="qwen3_moe", **SMALL))  # type: ignore[arg-type]
    assert fields["moe_intermediate_size"] == 24
    fields, _ = resolve(BackboneConfig(model_type="qwen2_moe", **SMALL))  # type: ignore[arg-type]
    assert (fields["moe_intermediate_size"], fields["shared_expert_intermediate_size"]) == (44, 176)


def test_what_is_named_stays(capsys: pytest.CaptureFixture[str]) -> None:
    named = {"num_key_value_heads": 1, "head_dim": 48}
    config = BackboneConfig(model_type="qwen3", **SMALL, intermediate_size=100, extra=named)  # type: ignore[arg-type]
    fields, derived = resolve(config)
    assert derived == {}
    assert fields == SMALL | named | {"intermediate_size": 100}
    by_own_names = BackboneConfig(model_type="distilbert", **SMALL, extra={"hidden_dim": 100})  # type: ignore[arg-type]
    assert backbone_config(by_own_names, 100).hidden_dim == 100


def test_the_presets_own_ratios_come_before_the_familys() -> None:
    config = BackboneConfig("llama-135m", hidden_size=192, num_attention_heads=6)
    fields, derived = resolve(config)
    assert derived == {"intermediate_size": 512, "num_key_value_heads": 2, "head_dim": 32}
    assert fields["num_hidden_layers"] == PRESETS["llama-135m"]["num_hidden_layers"]
    assert fields["max_position_embeddings"] == 2048


@pytest.mark.parametrize("preset", [p for p in PRESETS if not p.endswith(("-15m", "-250m"))])
def test_nothing_is_derived_for_a_preset(preset: str) -> None:
    fields = dict(PRESETS[preset])
    family = fields.pop("model_type")
    own_name = {"gpt2": "n_inner", "distilbert": "hidden_dim"}.get(family, "intermediate_size")
    fields[own_name] = fields.pop("intermediate_size")
    config = backbone_config(BackboneConfig(preset), 1000)
    assert resolve(BackboneConfig(preset))[1] == {}
    padding = {} if family == "modernbert-decoder" else {"pad_token_id": None}
    published = AutoConfig.for_model(family, vocab_size=1000, **padding, **fields).to_dict()
    # what a head of ours does not have, and what no config of the family may be without
    changed = {"nanochat": "final_logit_softcapping", "modernbert-decoder": "pad_token_id"}
    name = changed.get(family)
    assert {k: v for k, v in config.to_dict().items() if k != name} == {
        k: v for k, v in published.items() if k != name
    }


def test_the_shipped_configs_leave_nothing_to_derive() -> None:
    paths = [*Path("configs/backbone").glob("*.yaml")]
    for path in paths:
        backbone = yaml.safe_load(path.read_text())["model"]["backbone"]
        assert resolve(BackboneConfig(**backbone))[1] == {}, path
    assert len(paths) >= 7


def test_rounding() -> None:
    own = {"hidden_size": 96, "num_attention_heads": 8, "intermediate_size": 100, "head_dim": 16}
    own |= {"num_key_value_heads": 3, "query_pre_attn_scalar": 16}
    assert follow(own, {"hidden_size": 96}) == {}
    assert follow(own, {"hidden_size": 30, "num_attention_heads": 6}) == {
        "intermediate_size": 32,  # 31.25, up to a multiple of 8
        "num_key_value_heads": 2,  # 2.25
        "head_dim": 8,  # 6.67
        "query_pre_attn_scalar": 8,
    }
    # 5 heads have no 2 key-value heads.
    assert follow(own, {"num_attention_heads": 5})["num_key_value_heads"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be at least 1"),
        ({"hidden_size": 10**9}, "takes .* GiB, this machine has"),
        ({"num_hidden_layers": 10**10}, "lower model.backbone.hidden_size, num_hidden_layers"),
        ({"extra": {"num_key_value_heads": 0}}, "not a multiple of num_key_value_heads 0"),
        ({"extra": {"num_key_value_heads": 3}}, "not a multiple of num_key_value_heads 3"),
        ({"extra": {"hidden_act": "none of them"}}, "a llama cannot be made of these sizes"),
        ({"extra": {"hidden_size": "wide"}}, "hidden_size must be a whole number above 0: wide"),
        ({"extra": {"head_dim": 7}}, "a llama cannot be made of these sizes"),
        ({"attn_implementation": "none"}, "a llama cannot be made of these sizes"),
    ],
)
def test_sizes_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(HeadlessError, match=message):
        build_backbone(BackboneConfig(model_type="llama", **(SMALL | fields)), 100)  # type: ignore[arg-type]
