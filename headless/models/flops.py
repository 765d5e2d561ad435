"""How many floating-point operations a training step is (forward and backward).

A multiply-add is two operations. A weight matrix costs 2 a token forward and 4 backward (with
respect to its input and to itself); attention scores and mixes T keys, causal attention (T + 1)/2
on average, and sliding windows (Gemma, ModernBERT) what is in them.
Element-wise work, norms, embeddings' look-ups and re-computation are not counted, as in the
figures that MFU is quoted with (Chowdhery et al. 2022, appendix B), except that the causal half
of the attention matrix which nobody needs is not counted either.
"""

from typing import Any

from torch import nn

from headless.models.backbone import is_causal


def backbone_flops_per_token(backbone: nn.Module, sequence_length: int) -> float:
    """Forward and backward FLOPs of one token in a sequence of this length."""
    matrices = matrix_weights(backbone)
    config: Any = backbone.config
    heads, causal = config.num_attention_heads, is_causal(backbone)
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    kinds = getattr(config, "layer_types", None) or ["full"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None) or sequence_length
    keys = sum(
        _mean_keys(
            sequence_length, window if kind == "sliding_attention" else sequence_length, causal
        )
        for kind in kinds
    )
    attention = 2 * width * keys
    return 6.0 * float(matrices + attention)


def matrix_weights(backbone: nn.Module) -> int:
    """Weights that each token is multiplied with: those of all matrices but look-up tables."""
    lookups = {id(m.weight) for m in backbone.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in backbone.parameters() if p.ndim == 2 and id(p) not in lookups)


def _mean_keys(length: int, window: int, causal: bool) -> float:
    """How many keys a query sees: itself and `window - 1` before it, or `window` on either side."""
    before = min(window, length) - 1 if causal else min(window, length - 1)
    left = before - before * (before + 1) / (2 * length)  # the first ones have fewer
    return 1 + left if causal else 1 + 2 * left


def scoring_flops(num_rows: int, num_candidates: int, hidden_size: int) -> float:
    """Forward and backward FLOPs of scoring each row against each candidate vector."""
    return 6.0 * num_rows * num_candidates * hidden_size
