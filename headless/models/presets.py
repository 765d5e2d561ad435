"""Backbones by name: published architectures, and one ladder of sizes for the families of today.

Sizes as published; the vocabulary comes from the data. Dropout is off, as in Pythia and in every
comparison here: a regulariser would act on the two objectives differently.
"""

from typing import Any

_GPT2 = {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_PYTHIA = {"model_type": "gpt_neox", "max_position_embeddings": 2048}  # rotary on 25 %: default
_LLAMA = {"model_type": "llama", "max_position_embeddings": 2048}
_BERT = {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_DISTILBERT = {"model_type": "distilbert", "dropout": 0.0, "attention_dropout": 0.0}


def _sizes(layers: int, hidden: int, heads: int, intermediate: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2 | _sizes(12, 768, 12, 3072),
    "gpt2-medium": _GPT2 | _sizes(24, 1024, 16, 4096),
    "pythia-14m": _PYTHIA | _sizes(6, 128, 4, 512),
    "pythia-31m": _PYTHIA | _sizes(6, 256, 8, 1024),
    "pythia-70m": _PYTHIA | _sizes(6, 512, 8, 2048),
    "pythia-160m": _PYTHIA | _sizes(12, 768, 12, 3072),
    "pythia-410m": _PYTHIA | _sizes(24, 1024, 16, 4096),
    "llama-135m": _LLAMA | _sizes(30, 576, 9, 1536) | {"num_key_value_heads": 3},
    "bert-base": _BERT | _sizes(12, 768, 12, 3072),
    "bert-small": _BERT | _sizes(4, 512, 8, 2048),
    "distilbert-multilingual": _DISTILBERT | _sizes(6, 768, 12, 3072),
}
# The ladder (blocks, width): 64 dimensions a head, a head of keys and values for each of queries, a
# gated MLP of 8/3 widths and any other of 4, so that a block of every family has 12 D² weights and
# a size means the same in each; embeddings are not in its name.
LADDER = {
    **{"1m": (5, 128), "4m": (9, 192), "15m": (8, 384)},
    **{"60m": (12, 640), "250m": (20, 1024), "1b": (20, 2048)},
}
_GATED = {  # preset's first word: model type
    "qwen3": "qwen3",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
    "gemma3": "gemma3_text",
    "modernbert": "modernbert",
    "ettin": "modernbert-decoder",
}
_PLAIN = {"nanochat": "nanochat", "phi": "phi"}
_NO_GROUPS = ("modernbert", "modernbert-decoder")  # no heads of keys and values of their own
_HEAD_DIM = {
    "qwen3": {"head_dim": 64},
    "gemma3_text": {"head_dim": 64, "query_pre_attn_scalar": 64},
}


def _of_today(model_type: str, size: str, gated: bool) -> dict[str, Any]:
    layers, width = LADDER[size]
    mlp = -(-width * 8 // 3) if gated else 4 * width
    heads = {} if model_type in _NO_GROUPS else {"num_key_value_heads": width // 64}
    fields = _sizes(layers, width, width // 64, -(-mlp // 8) * 8)
    positions = {"max_position_embeddings": 2048}
    return {"model_type": model_type} | positions | fields | heads | _HEAD_DIM.get(model_type, {})


PRESETS |= {
    f"{name}-{size}": _of_today(model_type, size, families is _GATED)
    for families in (_GATED, _PLAIN)
    for name, model_type in families.items()
    for size in LADDER
}
