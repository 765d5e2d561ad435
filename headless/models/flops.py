"""How many floating-point operations a training step is (forward and backward).

A multiply-add is two operations. A weight matrix costs 2 a token forward and 4 backward (with
respect to its input and to itself); attention scores and mixes T keys, causal attention (T + 1)/2
on average.
Element-wise work, norms, embeddings' look-ups and re-computation are not counted, as in the
figures that MFU is quoted with (Chowdhery et al. 2022, appendix B), except that the causal half
of the attention matrix which nobody needs is not counted either.
"""

from torch import nn

from headless.models.backbone import is_causal


def backbone_flops_per_token(backbone: nn.Module, sequence_length: int) -> float:
    """Forward and backward FLOPs of one token in a sequence of this length."""
    lookups = {id(m.weight) for m in backbone.modules() if isinstance(m, nn.Embedding)}
    matrices = sum(p.numel() for p in backbone.parameters() if p.ndim == 2 and id(p) not in lookups)
    config = backbone.config
    width = config.num_attention_heads * (  # type: ignore[union-attr, operator]
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads  # type: ignore[union-attr, operator]
    )
    keys = (sequence_length + 1) / 2 if is_causal(backbone) else sequence_length
    attention = config.num_hidden_layers * 2 * width * keys  # type: ignore[union-attr, operator]
    return 6.0 * float(matrices + attention)


def scoring_flops(num_rows: int, num_candidates: int, hidden_size: int) -> float:
    """Forward and backward FLOPs of scoring each row against each candidate vector."""
    return 6.0 * num_rows * num_candidates * hidden_size
