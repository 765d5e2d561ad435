"""Where the parts of a block are in each family: the one place that knows module names.

A new family is one more row. Names are relative to a block, as Transformers 5 prints them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from headless.errors import HeadlessError
from headless.models.backbone import blocks


@dataclass(frozen=True)
class Family:
    """Module names of one family.

    Args:
        norm1: the norm before attention; for post-norm families the one after it.
        attn: attention, whose output is added to the residual stream.
        norm2: the norm before the MLP; for post-norm families the one after it.
        mlp: the MLP, whose output is added to the residual stream.
        mlp_down: the MLP's last linear layer: its input are the hidden activations.
        attn_out: attention's last linear layer: its input are the heads' outputs.
        final_norm: relative to the backbone; None where the last block ends with a norm.
        post_norm: the norms come after the additions (BERT).
        parallel: attention and MLP read the same stream (GPT-NeoX), by config.
    """

    norm1: str
    attn: str
    norm2: str
    mlp: str
    mlp_down: str
    attn_out: str
    final_norm: str | None
    post_norm: bool = False
    parallel: Callable[[Any], bool] = lambda config: False


_LLAMA = Family(
    norm1="input_layernorm",
    attn="self_attn",
    norm2="post_attention_layernorm",
    mlp="mlp",
    mlp_down="mlp.down_proj",
    attn_out="self_attn.o_proj",
    final_norm="norm",
)
_BERT = Family(
    norm1="attention.output.LayerNorm",
    attn="attention.output.dense",
    norm2="output.LayerNorm",
    mlp="output.dense",
    mlp_down="output.dense",
    attn_out="attention.output.dense",
    final_norm=None,
    post_norm=True,
)
FAMILIES = {
    "gpt2": Family(
        norm1="ln_1",
        attn="attn",
        norm2="ln_2",
        mlp="mlp",
        mlp_down="mlp.c_proj",
        attn_out="attn.c_proj",
        final_norm="ln_f",
    ),
    "gpt_neox": Family(
        norm1="input_layernorm",
        attn="attention",
        norm2="post_attention_layernorm",
        mlp="mlp",
        mlp_down="mlp.dense_4h_to_h",
        attn_out="attention.dense",
        final_norm="final_layer_norm",
        parallel=lambda config: bool(config.use_parallel_residual),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": Family(
        norm1="sa_layer_norm",
        attn="attention",
        norm2="output_layer_norm",
        mlp="ffn",
        mlp_down="ffn.lin2",
        attn_out="attention.out_lin",
        final_norm=None,
        post_norm=True,
    ),
}


def family_of(backbone: nn.Module) -> Family:
    """The names of a backbone's family.

    Raises:
        HeadlessError: a family that is not in the table.
    """
    config: Any = backbone.config
    if config.model_type not in FAMILIES:
        raise HeadlessError(
            f"the laboratory does not know the parts of a {config.model_type}; it knows "
            + ", ".join(FAMILIES)
        )
    return FAMILIES[config.model_type]


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of a model that makes hidden states: uncompiled, without an LM head."""
    whole: Any = getattr(model, "_orig_mod", model)
    return whole.base_model if hasattr(whole, "base_model") else whole


def input_width(linear: Any) -> int:
    """How many numbers a linear layer reads; GPT-2's `Conv1D` keeps its matrix the other way up."""
    return int(linear.nx if hasattr(linear, "nx") else linear.in_features)


def activation_of(backbone: nn.Module) -> tuple[Callable[[Tensor], Tensor], bool]:
    """The MLP's nonlinearity, and whether it gates: multiplies a second product."""
    from transformers.activations import ACT2FN

    config: Any = backbone.config
    names = ("hidden_act", "activation_function", "activation")
    name = next(getattr(config, n) for n in names if hasattr(config, n))
    gated = family_of(backbone).mlp_down == _LLAMA.mlp_down
    return (ACT2FN[name] if isinstance(name, str) else name), gated


@dataclass(frozen=True)
class Matrix:
    """A weight matrix by its role, as [out, in] whatever the family stores."""

    block: int
    role: str
    weight: Tensor


READS, WRITES = ("q", "k", "v", "gate", "up"), ("o", "down")


def block_matrices(backbone: nn.Module) -> list[Matrix]:
    """Every matrix of every block: q, k, v, o, gate (where there is one), up, down.

    Fused query-key-value matrices are taken apart: GPT-2's are thirds of a transposed matrix,
    GPT-NeoX's are interleaved by head.
    """
    config: Any = backbone.config
    readers = {
        "gpt2": _gpt2,
        "gpt_neox": lambda b: _neox(b, config.num_attention_heads),
        "bert": _bert,
        "roberta": _bert,
        "distilbert": _distilbert,
    }
    read = readers.get(config.model_type, _llama)
    family_of(backbone)
    return [
        Matrix(i, role, weight.detach())
        for i, block in enumerate(blocks(backbone))
        for role, weight in read(block).items()
    ]


def _gpt2(block: Any) -> dict[str, Tensor]:
    q, k, v = block.attn.c_attn.weight.T.chunk(3, dim=0)
    parts = {"o": block.attn.c_proj, "up": block.mlp.c_fc, "down": block.mlp.c_proj}
    return {"q": q, "k": k, "v": v} | {role: part.weight.T for role, part in parts.items()}


def _neox(block: Any, heads: int) -> dict[str, Tensor]:
    fused = block.attention.query_key_value.weight
    width = fused.shape[1]
    by_head = fused.view(heads, 3, width // heads, width)
    q, k, v = (by_head[:, i].reshape(width, width) for i in range(3))
    parts = {
        "o": block.attention.dense,
        "up": block.mlp.dense_h_to_4h,
        "down": block.mlp.dense_4h_to_h,
    }
    return {"q": q, "k": k, "v": v} | {role: part.weight for role, part in parts.items()}


def _llama(block: Any) -> dict[str, Tensor]:
    names = {r: getattr(block.self_attn, f"{r}_proj") for r in ("q", "k", "v", "o")}
    names |= {r: getattr(block.mlp, f"{r}_proj") for r in ("gate", "up", "down")}
    return {role: part.weight for role, part in names.items()}


def _bert(block: Any) -> dict[str, Tensor]:
    own = block.attention.self
    parts = {"q": own.query, "k": own.key, "v": own.value, "o": block.attention.output.dense}
    parts |= {"up": block.intermediate.dense, "down": block.output.dense}
    return {role: part.weight for role, part in parts.items()}


def _distilbert(block: Any) -> dict[str, Tensor]:
    own = block.attention
    parts = {"q": own.q_lin, "k": own.k_lin, "v": own.v_lin, "o": own.out_lin}
    parts |= {"up": block.ffn.lin1, "down": block.ffn.lin2}
    return {role: part.weight for role, part in parts.items()}
