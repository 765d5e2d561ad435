"""Backbones of five families, from scratch."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from headless.errors import HeadlessError
from headless.models.backbone import (
    PRESETS,
    BackboneConfig,
    backbone_config,
    build_backbone,
    check_length,
    check_task,
    embedding_table,
    hidden_states,
    is_causal,
    num_parameters,
)
from headless.models.flops import _mean_keys, backbone_flops_per_token, scoring_flops
from headless.models.presets import LADDER

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
CAUSAL = ["gpt2", "gpt_neox", "llama"]
ENCODERS = ["bert", "distilbert"]
FAMILIES = [*CAUSAL, *ENCODERS]
SIZED = tuple(f"-{size}" for size in LADDER if size != "1m")  # the same but for their sizes
SOME_PRESETS = [name for name in PRESETS if not name.endswith(SIZED) or name.startswith("pythia")]
TODAY = ["qwen3", "olmo2", "smollm3", "gemma3", "nanochat", "phi", "modernbert", "ettin"]


def tiny(family: str, **changes: object) -> BackboneConfig:
    extra = {"num_key_value_heads": 4} if family == "llama" else {}
    return BackboneConfig(model_type=family, **(TINY | changes), extra=extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_no_head(family: str) -> None:
    backbone = build_backbone(tiny(family), 50, eos_token_id=0, bos_token_id=0).eval()
    ids = torch.randint(0, 50, (2, 16))
    output = backbone(input_ids=ids, output_hidden_states=True, use_cache=False)
    assert output.last_hidden_state.shape == (2, 16, 32)
    assert len(output.hidden_states) == 3
    torch.testing.assert_close(hidden_states(backbone, ids), output.hidden_states[-1])
    assert embedding_table(backbone).shape == (50, 32)
    # Only the input table has one row a token: there is no head.
    assert [n for n, p in backbone.named_parameters() if 50 in p.shape] == [
        n for n, p in backbone.named_parameters() if p is embedding_table(backbone)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_parameter_is_left_untrained(family: str) -> None:
    """One that is, such as an encoder's pooler, stops training on several devices."""
    backbone = build_backbone(tiny(family), 50, eos_token_id=0, bos_token_id=0)
    hidden_states(backbone, torch.arange(50)[None]).square().sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
    table = embedding_table(backbone)
    assert table.grad is not None
    # No token is padding: each begins somewhere and learns.
    assert bool((table.grad != 0).any(dim=1).all())
    assert bool((table != 0).any(dim=1).all())


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_sees_both_sides(family: str) -> None:
    backbone = build_backbone(tiny(family), 50, eos_token_id=0, bos_token_id=0).eval()
    ids = torch.randint(0, 50, (1, 16))
    for position in (0, 15):
        changed = ids.clone()
        changed[0, position] = (changed[0, position] + 1) % 50
        before, after = hidden_states(backbone, ids), hidden_states(backbone, changed)
        moved = (before - after).abs().amax(dim=-1)[0]
        assert bool((moved > 1e-5).all())
    assert not is_causal(backbone)
    check_task(backbone, "masked")
    with pytest.raises(HeadlessError, match=f"{family} sees the tokens that a causal model must"):
        check_task(backbone, "causal")


def test_a_bert_that_its_config_makes_a_decoder_is_causal() -> None:
    config = BackboneConfig(model_type="bert", **TINY, extra={"is_decoder": True})  # type: ignore[arg-type]
    backbone = build_backbone(config, 50).eval()
    ids = torch.randint(0, 50, (1, 16))
    torch.testing.assert_close(
        hidden_states(backbone, ids)[:, :9], hidden_states(backbone, ids[:, :9])
    )
    assert is_causal(backbone)


@pytest.mark.parametrize("family", CAUSAL)
def test_it_is_causal(family: str) -> None:
    backbone = build_backbone(tiny(family), 50, eos_token_id=0, bos_token_id=0).eval()
    ids = torch.randint(0, 50, (1, 16))
    changed = ids.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 50
    before, after = hidden_states(backbone, ids), hidden_states(backbone, changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])
    assert is_causal(backbone)
    check_task(backbone, "causal")
    with pytest.raises(HeadlessError, match=f"{family} sees the left one only"):
        check_task(backbone, "masked")


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_what_torch_counts_less_the_masked_half(family: str) -> None:
    length, batch = 32, 2
    backbone = build_backbone(
        tiny(family, attn_implementation="eager"), 50, eos_token_id=0, bos_token_id=0
    )
    with FlopCounterMode(display=False) as counter:
        hidden_states(backbone, torch.randint(0, 50, (batch, length))).sum().backward()
    ours = backbone_flops_per_token(backbone, length) * batch * length
    layers, width = 2, 32
    masked = 6 * layers * 2 * width * (length - 1) / 2 * batch * length
    masked = 0 if family in ENCODERS else masked
    counted = counter.get_total_flops()
    assert ours + masked == pytest.approx(counted, rel=0.01)  # rotary tables are a few more


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 4, 15, 16, 40])
def test_keys_in_a_window(window: int, causal: bool) -> None:
    length = 16
    distance = torch.arange(length)[:, None] - torch.arange(length)
    seen = (distance >= 0) & (distance < window) if causal else distance.abs() <= window
    found = _mean_keys(length, window, causal)
    assert found == pytest.approx(float(seen.sum()) / length)


@pytest.mark.parametrize("family", TODAY)
def test_flops_of_todays_families(family: str) -> None:
    length = 16
    backbone = build_backbone(BackboneConfig(f"{family}-1m", attn_implementation="eager"), 50)
    with FlopCounterMode(display=False) as counter:
        hidden_states(backbone, torch.randint(0, 50, (1, length))).sum().backward()
    masked = 6 * 5 * 2 * 128 * (length - 1) / 2 if is_causal(backbone) else 0
    ours = backbone_flops_per_token(backbone, length) + masked
    assert ours * length == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("family", TODAY)
@pytest.mark.parametrize("size", ["1m", "60m", "1b"])
def test_a_size_means_the_same_in_every_family(family: str, size: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(f"{family}-{size}"), 50)
    count = num_parameters(backbone) - embedding_table(backbone).numel()
    nominal = float(size[:-1]) * {"m": 1e6, "b": 1e9}[size[-1]]
    assert count == pytest.approx(nominal, rel=0.06)


@pytest.mark.parametrize("family", TODAY)
def test_todays_families_train_every_weight_and_token(family: str) -> None:
    """Also with activation checkpointing: the same gradients, of fewer kept activations."""
    ids, gradients, kept = torch.arange(32).view(2, 16), [], []
    for again in (False, True):
        torch.manual_seed(1)
        config = BackboneConfig(f"{family}-1m", activation_checkpointing=again)
        backbone = build_backbone(config, 50, eos_token_id=0, bos_token_id=0)
        assert bool(embedding_table(backbone).abs().sum(dim=1).gt(0).all())
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            loss = hidden_states(backbone, ids).square().mul(torch.arange(128)).sum()
        loss.backward()
        kept.append(sum(sizes))
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    rows = gradients[0].pop(next(n for n, p in backbone.named_parameters() if p.shape[0] == 50))
    assert all(g is not None for g in gradients[0].values())
    assert bool((rows[:32].abs().sum(dim=1) > 0).all())  # no token is left out, as padding would be
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert kept[1] < 0.5 * kept[0]


def test_scoring_flops() -> None:
    hidden = torch.randn(10, 8, requires_grad=True)
    table = torch.randn(30, 8, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        (hidden @ table.T).sum().backward()
    assert scoring_flops(10, 30, 8) == counter.get_total_flops()


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_presets_are_real_configs(preset: str) -> None:
    config = backbone_config(BackboneConfig(preset), 50304, eos_token_id=0, bos_token_id=0)
    assert config.num_hidden_layers == PRESETS[preset]["num_hidden_layers"]
    assert config.hidden_size == PRESETS[preset]["hidden_size"]


@pytest.mark.parametrize(
    ("preset", "vocab_size", "millions"),
    # The checkpoints bert-base-uncased (without its pooler of 0.6 M), bert_uncased_L-4_H-512_A-8
    # (without 0.3) and distilbert-base-multilingual-cased.
    [("bert-base", 30522, 108.9), ("bert-small", 30522, 28.5)]
    + [("distilbert-multilingual", 119547, 134.7)],
)
def test_encoder_sizes_are_the_published_ones(
    preset: str, vocab_size: int, millions: float
) -> None:
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(preset), vocab_size)
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_presets_have_no_dropout(preset: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(preset, num_hidden_layers=1), 100)
    assert {m.p for m in backbone.modules() if isinstance(m, nn.Dropout)} <= {0.0}


@pytest.mark.parametrize(("preset", "millions"), [("pythia-70m", 18.9), ("pythia-160m", 85.1)])
def test_pythia_sizes_are_the_published_ones(preset: str, millions: float) -> None:
    """Non-embedding parameters of Biderman et al. 2023, Tab. 1."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(preset), 50304, eos_token_id=0, bos_token_id=0)
    total = sum(p.numel() for p in backbone.parameters()) - embedding_table(backbone).numel()
    assert total / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither a preset nor a model_type"),
        ({"preset": "pythia"}, "presets: gpt2"),
        ({"model_type": "gptx"}, "gptx"),
        ({"preset": "gpt2", "extra": {"n_layers": 3}}, "n_layers"),
        ({"preset": "gpt2", "hidden_size": 100}, "multiple of num_attention_heads"),
    ],
)
def test_mistakes_are_named(fields: dict, message: str) -> None:
    with pytest.raises(HeadlessError, match=message):
        backbone_config(BackboneConfig(**fields), 100)


def test_sequences_longer_than_the_positions_are_refused() -> None:
    backbone = build_backbone(tiny("gpt2"), 50, eos_token_id=0, bos_token_id=0)
    check_length(backbone, 64)
    with pytest.raises(HeadlessError, match=r"65.*64 positions"):
        check_length(backbone, 65)
