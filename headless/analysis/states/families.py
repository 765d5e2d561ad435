"""Where the parts of a block are in each family: the one place that knows module names.

A new family is one more row. Names are relative to a block, as Transformers 5 prints them. Of any
other family, and of a backbone of one's own, the stream between blocks is all that is looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from headless.models.backbone import blocks


@dataclass(frozen=True)
class Family:
    """Module names of one family.

    Args:
        norm1: the norm before attention; for post-norm families the one after it; None: there is
            none (OLMo 2).
        attn: attention, or the norm after it: whose output is added to the residual stream.
        norm2: the norm before the MLP; for post-norm families the one after it; None: there is
            none, or a parallel block has one norm for both (Phi).
        mlp: the MLP, or the norm after it: whose output is added to the residual stream.
        final_norm: relative to the backbone; "": what the backbone gives is its output; None where
            the last block ends with a norm.
        matrices: linear layers by role; "qkv" is one of all three and "gate_up" one of both, see
            `block_matrices`. The heads' outputs are what "o" reads, the hidden activations what
            "down" reads.
        mid: the module that reads the stream after attention, where it is not norm2.
        post_norm: the norms come after the additions (BERT).
        parallel: attention and MLP read the same stream (GPT-NeoX), by config.
        gain_at_0: what a norm's weights are added to (Gemma's begin at 0).
    """

    norm1: str | None
    attn: str | None
    norm2: str | None
    mlp: str | None
    final_norm: str | None
    matrices: Mapping[str, str]
    mid: str | None = None
    post_norm: bool = False
    parallel: Callable[[Any], bool] = lambda config: False
    gain_at_0: float = 0.0


_LLAMA = Family(
    "input_layernorm", "self_attn", "post_attention_layernorm", "mlp", "norm",
    {role: f"self_attn.{role}_proj" for role in "qkvo"}
    | {role: f"mlp.{role}_proj" for role in ("gate", "up", "down")},
)  # fmt: skip
_BERT = Family(
    "attention.output.LayerNorm", "attention.output.dense", "output.LayerNorm", "output.dense",
    None,
    {
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
        "o": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense",
    },
    post_norm=True,
)  # fmt: skip
_OLMO = Family(
    None, "post_attention_layernorm", None, "post_feedforward_layernorm", "norm", _LLAMA.matrices,
    mid="mlp",
)  # fmt: skip
_GEMMA = Family(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
    "post_feedforward_layernorm", "norm", _LLAMA.matrices, gain_at_0=1.0,
)  # fmt: skip
_QKV = {role: f"self_attn.{role}_proj" for role in "qkv"}
_MODERNBERT = Family(
    "attn_norm", "attn", "mlp_norm", "mlp", "final_norm",
    {"qkv": "attn.Wqkv", "o": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"},
)  # fmt: skip
UNKNOWN = Family(None, None, None, None, "", {})
FAMILIES = {
    "gpt2": Family(
        "ln_1", "attn", "ln_2", "mlp", "ln_f",
        {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
    ),
    "gpt_neox": Family(
        "input_layernorm", "attention", "post_attention_layernorm", "mlp", "final_layer_norm",
        {
            "qkv": "attention.query_key_value", "o": "attention.dense",
            "up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h",
        },
        parallel=lambda config: bool(config.use_parallel_residual),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "olmo2": _OLMO,
    "olmo3": _OLMO,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "nanochat": Family(  # its final norm is its first one, too
        "input_layernorm", "self_attn", "post_attention_layernorm", "mlp", "",
        _QKV | {"o": "self_attn.o_proj", "up": "mlp.fc1", "down": "mlp.fc2"},
    ),
    "phi": Family(
        "input_layernorm", "self_attn", None, "mlp", "final_layernorm",
        _QKV | {"o": "self_attn.dense", "up": "mlp.fc1", "down": "mlp.fc2"},
        parallel=lambda config: True,
    ),
    "modernbert": _MODERNBERT,
    "modernbert-decoder": replace(
        _MODERNBERT,
        matrices={role: f"attn.{role}_proj" for role in "qkv"}
        | {role: name for role, name in _MODERNBERT.matrices.items() if role != "qkv"},
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": Family(
        "sa_layer_norm", "attention", "output_layer_norm", "ffn", None,
        {role: f"attention.{role}_lin" for role in "qkv"}
        | {"o": "attention.out_lin", "up": "ffn.lin1", "down": "ffn.lin2"},
        post_norm=True,
    ),
}  # fmt: skip


def family_of(backbone: nn.Module) -> Family:
    """Of a backbone; `UNKNOWN` for one that is not in the table."""
    return FAMILIES.get(str(backbone.config.model_type), UNKNOWN)  # type: ignore[union-attr]


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of a model that makes hidden states: uncompiled, without an LM head."""
    whole: Any = getattr(model, "_orig_mod", model)
    return whole.base_model if hasattr(whole, "base_model") else whole


def activation_of(backbone: nn.Module) -> tuple[Callable[[Tensor], Tensor], bool]:
    """The MLP's nonlinearity, and whether it gates: multiplies a second product."""
    from transformers.activations import ACT2FN

    config: Any = backbone.config
    names = ("hidden_act", "hidden_activation", "activation_function", "activation")
    name = next(getattr(config, n) for n in names if hasattr(config, n))
    gated = not {"gate", "gate_up"}.isdisjoint(family_of(backbone).matrices)
    return (ACT2FN[name] if isinstance(name, str) else name), gated


@dataclass(frozen=True)
class Matrix:
    """A weight matrix by its role, as [out, in] whatever the family stores."""

    block: int
    role: str
    weight: Tensor


READS, WRITES = ("q", "k", "v", "gate", "up"), ("o", "down")


def block_matrices(
    backbone: nn.Module, read: Callable[[Tensor], Tensor] = Tensor.detach
) -> list[Matrix]:
    """Every matrix of every block: q, k, v, o, gate (where there is one), up, down.

    Fused matrices are taken apart: GPT-2's query-key-values are thirds, GPT-NeoX's are interleaved
    by head, ModernBERT's gate is the first half. `read` gives what is looked at of a parameter,
    e.g. its gradient.
    """
    config: Any = backbone.config
    heads = config.num_attention_heads if config.model_type == "gpt_neox" else 1
    return [
        Matrix(i, part_role, part)
        for i, block in enumerate(blocks(backbone))
        for role, name in family_of(backbone).matrices.items()
        for part_role, part in _parts(role, block.get_submodule(name), heads, read)
    ]


def _parts(
    role: str, linear: Any, heads: int, read: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    weight = read(linear.weight)
    if hasattr(linear, "nx"):  # GPT-2's `Conv1D` keeps it the other way up
        weight = weight.T
    if role == "qkv":
        by_head = weight.reshape(heads, 3, -1, weight.shape[1])
        yield from ((part, by_head[:, i].flatten(0, 1)) for i, part in enumerate(role))
    elif role == "gate_up":
        yield from zip(("gate", "up"), weight.chunk(2), strict=True)
    else:
        yield role, weight
