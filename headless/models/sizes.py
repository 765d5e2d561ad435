"""What a backbone's width and heads decide where nothing else is said: its family's own ratios."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import psutil

from headless.errors import HeadlessError

MLP_WIDTHS = (
    *("intermediate_size", "hidden_dim", "ffn_dim", "word_embed_proj_dim"),
    # of one expert among many, and of those that all tokens share
    *("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"),
)
# Of the family's config class; the preset's, where there is one, stand above them.
Fields = Mapping[str, Any]


def follow(usual: Fields, named: Fields) -> dict[str, Any]:
    """What is left out and depends on width, heads or the number of blocks.

    Sizes keep their ratio to width and heads: a family whose MLP is 2.6875 widths wide gets one of
    344 at a width of 128. Lists keep the family's order.

    Args:
        usual: the family's fields, or the preset's, under their common names.
        named: those that somebody chose: they stay as they are.
    """
    derived = _sizes(usual, named)
    layers, kinds = named.get("num_hidden_layers"), usual.get("attention_types")
    if _is_size(layers) and kinds and layers != usual.get("num_hidden_layers"):
        # GPT-Neo's kinds of attention, one a block; other families make such lists themselves.
        derived["attention_types"] = [[(list(kinds[0][0]) * layers)[:layers], 1]]
    return {name: value for name, value in derived.items() if name not in named}


def _sizes(usual: Fields, named: Fields) -> dict[str, Any]:
    width_0, heads_0 = usual.get("hidden_size"), usual.get("num_attention_heads")
    width, heads = named.get("hidden_size", width_0), named.get("num_attention_heads", heads_0)
    if not (_is_size(width_0) and _is_size(heads_0) and _is_size(width) and _is_size(heads)):
        return {}
    if (width, heads) == (width_0, heads_0):
        return {}
    derived = {
        name: _scaled(usual[name], width, width_0, multiple=8, up=True)
        for name in MLP_WIDTHS
        if _is_size(usual.get(name)) and width != width_0
    }
    if _is_size(kv_heads := usual.get("num_key_value_heads")):
        most = max(1, round(kv_heads * heads / heads_0))
        derived["num_key_value_heads"] = max(n for n in range(1, most + 1) if heads % n == 0)
    for name, multiple in (("head_dim", 8), ("rotary_dim", 2)):  # the latter is a part of a head
        if _is_size(size := usual.get(name)):
            derived[name] = _scaled(size, width * heads_0, heads * width_0, multiple=multiple)
    if "head_dim" in derived and usual.get("query_pre_attn_scalar") == usual["head_dim"]:
        derived["query_pre_attn_scalar"] = named.get("head_dim", derived["head_dim"])
    return derived


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _scaled(size: int, new: int, old: int, *, multiple: int, up: bool = False) -> int:
    """`size * new / old`: exact where it is whole, else the nearest multiple, or the next one."""
    if size * new % old == 0:
        return size * new // old
    parts = size * new / old / multiple
    return multiple * max(1, -int(-parts // 1) if up else round(parts))


def check_heads(values: Fields) -> None:
    """Refuse a width that the heads do not divide, and heads that their key-value heads do not."""
    width: Any = values.get("hidden_size")
    heads: Any = values.get("num_attention_heads")
    for name, value in (("hidden_size", width), ("num_attention_heads", heads)):
        if not _is_size(value):
            raise HeadlessError(f"model.backbone.{name} must be a whole number above 0: {value}")
    if width % heads:
        raise HeadlessError(
            f"hidden_size {width} is not a multiple of num_attention_heads {heads}: "
            "change one of them"
        )
    kv_heads = values.get("num_key_value_heads")
    if kv_heads is not None and (not _is_size(kv_heads) or heads % kv_heads):
        raise HeadlessError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}: "
            "change one of them"
        )


def check_memory(values: Fields, vocab_size: int) -> None:
    """Refuse a backbone whose weights alone are more than the machine has memory for."""
    width = values.get("hidden_size") or 1
    layers = values.get("num_hidden_layers") or 1
    mlp = next((values[name] for name in MLP_WIDTHS if _is_size(values.get(name))), 4 * width)
    tables = vocab_size
    if not values.get("rope_parameters"):  # a vector a position
        tables += values.get("max_position_embeddings") or 0
    count = tables * width + layers * (2 * width * width + 2 * width * mlp)
    gib, machine_gib = 4 * count / 2**30, psutil.virtual_memory().total / 2**30
    if gib > machine_gib:
        raise HeadlessError(
            f"a backbone of {count:,} weights or more takes {gib:,.0f} GiB, this machine has "
            f"{machine_gib:,.0f}: lower model.backbone.hidden_size, num_hidden_layers, "
            "intermediate_size or max_position_embeddings"
        )
