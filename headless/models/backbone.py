"""Backbones: any Hugging Face decoder or encoder, from scratch, without its LM head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from headless.errors import HeadlessError
from headless.models.attention import without_mask
from headless.models.custom import MODEL_TYPE as CUSTOM
from headless.models.custom import build_custom
from headless.models.presets import PRESETS
from headless.models.sizes import check_heads, check_memory, follow

# These families have a name of their own for the MLP's width and map the other common ones.
_RENAMED = {
    "gpt2": {"intermediate_size": "n_inner"},
    "distilbert": {"intermediate_size": "hidden_dim"},
}
SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings"),
)


@dataclass(frozen=True)
class BackboneConfig:
    """Which architecture to build.

    A field that is None has the preset's or the family's value; where width or heads are other
    than those, the sizes that depend on them follow in the same ratios (see `sizes.follow`).

    Args:
        preset: an architecture by name: gpt2, gpt2-medium, pythia-14m, -31m, -70m, -160m, -410m,
            llama-135m, bert-base, bert-small, distilbert-multilingual as published; qwen3, olmo2,
            smollm3, gemma3, nanochat, phi, modernbert, ettin (ModernBERT's decoder) with -1m, -4m,
            -15m, -60m, -250m or -1b: so many weights without embeddings, alike in all of them.
        model_type: a Hugging Face model type (gpt2, gpt_neox, llama, bert, ...) where no preset
            is given.
        hidden_size: width D of the residual stream.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads a block; divides hidden_size.
        intermediate_size: width of the MLP; None: as many widths as in the family.
        max_position_embeddings: longest sequence.
        attn_implementation: "sdpa" (eager where the family has none), "eager",
            "flash_attention_2", ... as in Transformers.
        activation_checkpointing: keep no activations of a block, and run it a second time in the
            backward pass: less memory for one more forward pass.
        custom: a class of your own instead of a family, as MODULE.CLASS (and --import MODULE),
            called with vocab_size and the fields of `extra`; see `models.custom`.
        extra: any other fields of the family's config class.
    """

    preset: str | None = None
    model_type: str | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int | None = None
    attn_implementation: str = "sdpa"
    activation_checkpointing: bool = False
    custom: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise HeadlessError(
                f"there is no backbone preset {self.preset!r}; presets: {', '.join(PRESETS)}"
            )
        for name in SIZES:
            if (value := getattr(self, name)) is not None and value < 1:
                raise HeadlessError(f"model.backbone.{name} must be at least 1, got {value}")
        families = [n for n in ("preset", "model_type", *SIZES) if getattr(self, n) is not None]
        if self.custom and families:
            raise HeadlessError(
                f"model.backbone.custom has its arguments in model.backbone.extra: leave out "
                f"model.backbone.{families[0]}"
            )

    @property
    def family(self) -> str:
        if self.custom:
            return self.custom
        if self.preset is None and self.model_type is None:
            raise HeadlessError(
                "the backbone has neither a preset nor a model_type; presets: " + ", ".join(PRESETS)
            )
        return str(self.extra.get("model_type") or self.model_type or self.published["model_type"])

    @property
    def published(self) -> dict[str, Any]:
        return PRESETS[self.preset] if self.preset else {}

    @property
    def named(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in SIZES if getattr(self, name) is not None}
        return sizes | {name: value for name, value in self.extra.items() if name != "model_type"}


def resolve(config: BackboneConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the family's config that are set, and those of them that followed from others.

    Refuses an unknown model type, an unknown field, and sizes that do not fit.
    """
    if config.custom:
        return {}, {}
    try:
        known = AutoConfig.for_model(config.family)
    except ValueError as error:
        raise HeadlessError(
            f"Transformers knows no model_type {config.family!r}; try gpt2, gpt_neox, llama or bert"
        ) from error
    renamed = _RENAMED.get(config.family, {})
    common = {theirs: name for name, theirs in (known.attribute_map | renamed).items()}

    def usual(fields: dict[str, Any]) -> dict[str, Any]:
        return {common.get(name, name): value for name, value in fields.items()}

    unknown = [n for n in config.named if n not in renamed and not hasattr(known, n)]
    if unknown:
        raise HeadlessError(f"the config of {config.family} has no field {', '.join(unknown)}")
    family, named = usual(known.to_dict()), usual(config.named)
    preset = usual({k: v for k, v in config.published.items() if k != "model_type"})
    preset |= follow(family, preset)
    check_heads(family | preset | {"num_key_value_heads": None} | named)
    derived = follow(family | preset, named)
    fields = preset | derived | named
    check_heads(family | fields)
    return {renamed.get(name, name): value for name, value in fields.items()}, derived


def backbone_config(config: BackboneConfig, vocab_size: int, **tokens: int) -> PretrainedConfig:
    """The Hugging Face config of a backbone; `tokens` are special token ids (eos_token_id, ...)."""
    fields, _ = resolve(config)
    # Every token is one of the text. A family's padding id would be a token of our vocabulary whose
    # embedding begins at 0 and stays there. The logits are the objective's: no cap of the family's.
    values: dict[str, Any] = {"pad_token_id": None} | tokens | fields
    usual = AutoConfig.for_model(config.family)
    if hasattr(usual, "final_logit_softcapping"):
        values.setdefault("final_logit_softcapping", None)
    if usual.pad_token_id is not None:
        try:
            AutoConfig.for_model(config.family, pad_token_id=None)
        except Exception:  # noqa: BLE001 - a family that must have one (modernbert-decoder)
            values["pad_token_id"] = values.get("eos_token_id", 0)  # see `build_backbone`
    try:
        return AutoConfig.for_model(config.family, vocab_size=vocab_size, **values)
    except Exception as error:  # noqa: BLE001 - each config class has checks of its own
        raise _impossible(config, error) from error


def _impossible(config: BackboneConfig, error: Exception) -> HeadlessError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return HeadlessError(f"a {config.family} cannot be made of these sizes: {reason}")


def or_eager(make: Callable[..., Any], attn_implementation: str) -> Any:
    """What is made, with the eager attention where the family has none of torch's."""
    try:
        return make(attn_implementation=attn_implementation)
    except ValueError as error:
        if attn_implementation != "sdpa" or "scaled_dot_product_attention" not in str(error):
            raise
        return make(attn_implementation="eager")


_UNFILLED = ContextVar("unfilled", default=False)


@contextmanager
def unfilled_weights() -> Iterator[None]:
    """Inside, new weights are memory as it comes and no random number is drawn: others follow."""
    token = _UNFILLED.set(True)
    try:
        with no_init_weights():
            yield
    finally:
        _UNFILLED.reset(token)


def build_backbone(config: BackboneConfig, vocab_size: int, **tokens: int) -> PreTrainedModel:
    """A backbone with fresh weights, initialised as its family does, without an LM head.

    Called as `backbone(input_ids=BT)`, it returns `last_hidden_state` [B, T, D] (after the final
    norm) and, on request, `hidden_states`: L + 1 of them, the last one after the final norm. Sizes
    that the family cannot have, or this machine no memory for, are refused.
    """
    if config.custom:
        return _custom(config, vocab_size)
    hf_config, attention = backbone_config(config, vocab_size, **tokens), config.attn_implementation
    is_empty = _UNFILLED.get() or torch.get_default_device().type == "meta"
    if not is_empty:
        values = {name: getattr(hf_config, name, None) for name in (*SIZES, "rope_parameters")}
        check_memory(values, vocab_size)
    try:
        make = partial(AutoModel.from_config, hf_config)
        backbone: Any = or_eager(make, attention)
        if not is_empty and attention in ("sdpa", "eager"):  # they run on the CPU
            with torch.no_grad():
                hidden_states(backbone.eval(), torch.zeros(1, 2, dtype=torch.long))
            backbone.train()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - each family complains in its own way
        raise _impossible(config, error) from error
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # an encoder's, for sentences: nothing here would train it
    backbone.get_input_embeddings().padding_idx = None  # its row would get no gradient
    recompute_activations(backbone, config.activation_checkpointing)
    return backbone


def _custom(config: BackboneConfig, vocab_size: int) -> Any:
    if config.activation_checkpointing:
        raise HeadlessError(
            "model.backbone.activation_checkpointing is a switch of the library's families: in a "
            "backbone of your own, call torch.utils.checkpoint"
        )
    assert config.custom
    return build_custom(config.custom, vocab_size, config.extra, is_filled=not _UNFILLED.get())


def recompute_activations(backbone: PreTrainedModel, enabled: bool) -> None:
    """Activation checkpointing of each block, where the family has it."""
    if not enabled:
        return
    old_name = backbone.gradient_checkpointing_enable  # before Transformers 5.20
    enable: Any = getattr(backbone, "activation_checkpointing_enable", old_name)
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise HeadlessError(
            f"model.backbone.activation_checkpointing: {backbone.config.model_type} has none"
        ) from error


def is_custom(backbone: nn.Module) -> bool:
    """Whether it is a module of the user's own, which only its class can make again."""
    return bool(backbone.config.model_type == CUSTOM)  # type: ignore[union-attr]


def is_causal(backbone: nn.Module) -> bool:
    """Whether a position sees only those before it, and itself.

    The families that Transformers has a masked language model of see all of them, unless their
    config makes a decoder of them.
    """
    config: Any = backbone.config
    if is_custom(backbone):
        return bool(config.is_causal)
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return not encoder or bool(getattr(config, "is_decoder", False))


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The transformer blocks: of any family the list with as many modules as its config says."""
    depth = backbone.config.num_hidden_layers  # type: ignore[union-attr]
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    raise HeadlessError(
        f"no list of {depth} blocks in a {type(backbone).__name__}: it cannot be sharded; "
        "choose trainer.strategy ddp"
    )


def embedding_table(backbone: nn.Module) -> nn.Parameter:
    """The input embedding table [V, D]: tokens only, no positions."""
    return backbone.get_input_embeddings().weight  # type: ignore[operator]


def num_parameters(module: nn.Module) -> int:
    """Number of trainable values, shared ones counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def check_length(backbone: nn.Module, sequence_length: int) -> None:
    """Refuse sequences that the backbone has no positions for."""
    positions = getattr(backbone.config, "max_position_embeddings", None)
    if positions is not None and sequence_length > positions:
        raise HeadlessError(
            f"sequence_length {sequence_length} is longer than the model's {positions} positions: "
            "lower data.sequence_length or raise model.backbone.max_position_embeddings"
        )


def check_task(backbone: nn.Module, task: str) -> None:
    """Refuse a task that the backbone cannot learn, or would solve by looking at the answer."""
    model_type = backbone.config.model_type  # type: ignore[union-attr]
    if task == "masked" and is_causal(backbone):
        raise HeadlessError(
            f"a masked model must see both sides of a token, but {model_type} sees the left one "
            "only: choose data.task causal, or a backbone such as bert or distilbert"
        )
    if task == "causal" and not is_causal(backbone):
        raise HeadlessError(
            f"{model_type} sees the tokens that a causal model must predict: choose data.task "
            "masked, or a backbone such as gpt2, gpt_neox or llama"
        )


def hidden_states(
    backbone: nn.Module, input_ids_BT: torch.Tensor, table_UD: torch.Tensor | None = None
) -> torch.Tensor:
    """The last hidden state [B, T, D] of a forward pass without a cache.

    With `table_UD`, the ids are places in that table, which stands for the backbone's own.
    """
    inputs = {"input_ids": input_ids_BT}
    if table_UD is not None:  # through the module of the embeddings, for Gemma's scales them
        embeddings: nn.Module = backbone.get_input_embeddings()  # type: ignore[operator]
        made = torch.func.functional_call(embeddings, {"weight": table_UD}, (input_ids_BT,))
        inputs = {"inputs_embeds": made}
    with without_mask(backbone, input_ids_BT.shape[1]):
        return backbone(**inputs, use_cache=False).last_hidden_state
