"""Where the parts of a block are in each family: the one place that knows module names.

A new family is one more row. Names are relative to a block, as Transformers 5 prints them.
"""

from collections.abc import Callable, Iterator, Mapping
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
        final_norm: relative to the backbone; None where the last block ends with a norm.
        matrices: linear layers by role; "qkv" is one of all three, see `block_matrices`. The
            hidden activations are what "down" reads.
        post_norm: the norms come after the additions (BERT).
        parallel: attention and MLP read the same stream (GPT-NeoX), by config.
    """

    norm1: str
    attn: str
    norm2: str
    mlp: str
    final_norm: str | None
    matrices: Mapping[str, str]
    post_norm: bool = False
    parallel: Callable[[Any], bool] = lambda config: False


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
    """Of a backbone; a HeadlessError for one that is not in the table."""
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


def activation_of(backbone: nn.Module) -> tuple[Callable[[Tensor], Tensor], bool]:
    """The MLP's nonlinearity, and whether it gates: multiplies a second product."""
    from transformers.activations import ACT2FN

    config: Any = backbone.config
    names = ("hidden_act", "activation_function", "activation")
    name = next(getattr(config, n) for n in names if hasattr(config, n))
    gated = "gate" in family_of(backbone).matrices
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

    Fused query-key-value matrices are taken apart: GPT-2's are thirds, GPT-NeoX's are interleaved
    by head. `read` gives what is looked at of a parameter, e.g. its gradient.
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
    if role != "qkv":
        yield role, weight
        return
    by_head = weight.reshape(heads, 3, -1, weight.shape[1])
    yield from ((part, by_head[:, i].reshape(-1, weight.shape[1])) for i, part in enumerate(role))
