"""Which modules are sharded on their own; what sharding does is tests/training/test_distributed."""

import pytest
import torch
from torch import nn

from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, blocks, build_backbone
from headless.models.sharding import gathered, is_sharded, shard


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert", "distilbert"])
def test_blocks_hold_what_repeats(family: str) -> None:
    """As many as the config says, alike, and together all parameters but tables and last norm."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    backbone = build_backbone(
        BackboneConfig(model_type=family, intermediate_size=32, **sizes),
        vocab_size=50,
        bos_token_id=0,
        eos_token_id=0,
    )
    found = blocks(backbone)
    assert len(found) == 3
    assert len({type(block) for block in found}) == 1
    held = {id(p) for block in found for p in block.parameters()}
    rest = [name for name, p in backbone.named_parameters() if id(p) not in held]
    assert all("emb" in n or "wte" in n or "wpe" in n or "norm" in n or "ln_f" in n for n in rest)


def test_what_cannot_be_sharded_says_so() -> None:
    backbone = nn.Linear(2, 2)
    backbone.config = type("Config", (), {"num_hidden_layers": 4})
    with pytest.raises(HeadlessError, match="strategy ddp"):
        blocks(backbone)
    backbone.temperature = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(HeadlessError, match="temperature is a single number"):
        shard(backbone, backbone, None)


def test_a_whole_module_is_left_alone() -> None:
    module = nn.Linear(2, 2)
    weight = module.weight
    assert not is_sharded(module)
    with gathered(module):
        assert module.weight is weight
