"""Attention without a mask tensor, where a model needs none.

Compiled, Transformers makes a mask [B, 1, T, T] of a causal model's positions, whatever they are:
twice the work, and no flash kernel. It makes none for an attention whose name it has no mask for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WITHOUT_MASK = "sdpa_without_mask"  # of a call: no config holds it before or after
# Decoders whose only mask is the causal one, or, in some of their blocks, a window over it.
CAUSAL = {
    *("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "smollm3"),
    *("gemma", "gemma3_text", "nanochat", "phi", "modernbert-decoder"),
}
AttentionInterface.register(WITHOUT_MASK, sdpa_attention_forward)


def needs_mask(backbone: nn.Module, length: int) -> bool:
    """Whether scaled dot-product attention over so many unpadded tokens is more than causal."""
    config: Any = backbone.config
    if config._attn_implementation != "sdpa" or config.model_type not in CAUSAL:
        return True
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return window is not None and "sliding_attention" in kinds and length > window


@contextmanager
def without_mask(backbone: nn.Module, length: int) -> Iterator[None]:
    """Inside, a call with token ids alone, at most so many in a row, makes no mask in vain.

    A padding mask would be left out of account: the caller has none.
    """
    if needs_mask(backbone, length):
        yield
        return
    config: Any = backbone.config
    config._attn_implementation = WITHOUT_MASK
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
