"""Where training begins when it does not begin from random weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
)

from headless.data.tokenizer import open_tokenizer, same_ids
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, is_causal
from headless.models.pretrained import architecture, as_backbone, load_config, load_pretrained
from headless.objectives import LMHead


@dataclass(frozen=True)
class Source:
    """A trained model to begin from.

    Args:
        backbone: with its weights.
        config: its architecture as plain values.
        head: its LM head; None where it was not asked for.
        tokenizer: of a Hugging Face model, where it has one.
        tokenizer_sha256: of a run of ours.
        description: a few words for tables.
    """

    backbone: PreTrainedModel
    config: BackboneConfig
    head: LMHead | None
    tokenizer: Any = None
    tokenizer_sha256: str | None = None
    description: str = ""


def open_source(place: str, *, with_head: bool, attn_implementation: str = "sdpa") -> Source:
    """A run directory, a checkpoint, a Hugging Face directory or a hub name.

    Raises:
        HeadlessError: nothing usable is there.
    """
    from headless.training.loading import is_run, load_module

    if not is_run(place):
        return _from_hugging_face(place, with_head, attn_implementation)
    module = load_module(place)
    head = None
    if with_head:
        head = module.objective.lm_head(module.embedding_VD, module.unigram_counts)
    backbone: Any = module.backbone
    backbone.train()
    config = architecture(backbone.config, attn_implementation)
    return Source(
        backbone,
        config,
        head,
        tokenizer_sha256=module.tokenizer_sha256,
        description=module.objective.describe(),
    )


def _from_hugging_face(place: str, with_head: bool, attn_implementation: str) -> Source:
    config: Any = load_config(place)
    backbone: Any = load_pretrained(place, attn_implementation=attn_implementation)
    head = None
    if with_head:
        head = _linear_head(place, backbone)
    try:
        tokenizer = open_tokenizer(place)
    except HeadlessError:  # a model without a tokenizer: sizes are all there is to check
        tokenizer = None
    backbone = as_backbone(backbone)
    backbone.train()
    return Source(
        backbone,
        architecture(config, attn_implementation),
        head,
        tokenizer,
        description=Path(place).name,
    )


@torch.no_grad()
def _linear_head(place: str, backbone: Any) -> LMHead:
    """The head of a Hugging Face model, where it is a matrix and perhaps a bias.

    Raises:
        HeadlessError: it is more than that.
    """
    auto_class = AutoModelForCausalLM if is_causal(backbone) else AutoModelForMaskedLM
    more = HeadlessError(
        f"the LM head of {place} is more than a matrix and a bias: begin with --model.init_head "
        "embedding, or name the run that it was exported from"
    )
    if getattr(load_config(place), "auto_map", None):
        raise more
    model: Any = load_pretrained(place, auto_class)
    linear = model.get_output_embeddings()
    head = LMHead(linear.weight, linear.bias)
    ids_1T = torch.arange(min(16, len(linear.weight)))[None]
    logits = model(input_ids=ids_1T).logits
    if not torch.allclose(head.logits(backbone(input_ids=ids_1T).last_hidden_state), logits, 1e-3):
        raise more
    return head


def check_vocabulary(source: Source, datamodule: Any, place: str) -> None:
    """Refuse data whose token ids mean something else to the model.

    Raises:
        HeadlessError: says what to do.
    """
    ours = getattr(datamodule, "tokenizer_sha256", None)
    if source.tokenizer_sha256 is not None:
        same = ours is None or source.tokenizer_sha256 == ours
    elif source.tokenizer is not None:
        same = same_ids(source.tokenizer, datamodule.tokenizer)
    else:
        return
    if not same:
        tokenizer = f"{place}/tokenizer" if source.tokenizer is None else place
        if Path(place).is_file():
            tokenizer = str(Path(place).parent.parent / "tokenizer")
        raise HeadlessError(
            f"{place} was trained with another tokenizer than the data in {datamodule.path}: "
            f"prepare the text with its own (headless prepare --tokenizer {tokenizer})"
        )
