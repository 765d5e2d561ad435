"""A trained model to begin from, and what of Hugging Face's can be one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from headless.data.tokenizer import open_tokenizer, same_ids
from headless.errors import HeadlessError
from headless.models.backbone import (
    BackboneConfig,
    embedding_table,
    is_causal,
    recompute_activations,
)
from headless.models.pretrained import architecture, as_backbone, load_config, load_pretrained
from headless.objectives import LMHead
from headless.training.checkpoint_io import is_run
from headless.training.compat import datamodule_of
from headless.training.resume import check_tokenizer


@dataclass(frozen=True)
class Source:
    """A trained model to begin from."""

    place: str  # what the user named
    backbone: PreTrainedModel  # with its weights, in training mode
    config: BackboneConfig
    head: LMHead | None  # None where it is not wanted
    description: str  # for tables
    tokenizer: Any = None  # of a Hugging Face model, where it has one
    tokenizer_sha256: str | None = None  # of a run of ours

    def vocab_size(self, token_ids: int) -> int:
        """The rows of the trained table, which may be padded beyond the tokenizer's ids."""
        rows = len(embedding_table(self.backbone))
        if rows < token_ids:
            raise HeadlessError(
                f"{self.place} has {rows} token embeddings, the data {token_ids} token ids: "
                "prepare the text with the model's tokenizer (headless prepare --tokenizer …)"
            )
        return rows

    def check_vocabulary(self, datamodule: Any) -> None:
        """Refuse data whose token ids mean something else to the model."""
        check_tokenizer(self.tokenizer_sha256, datamodule)
        if self.tokenizer is not None and datamodule.tokenizer_sha256 is None:
            raise HeadlessError(
                f"{self.place} was trained on text, and {datamodule.path} holds item ids: begin "
                "with a run of such data, or without model.init_from"
            )
        if self.tokenizer is not None and not same_ids(self.tokenizer, datamodule.tokenizer):
            raise HeadlessError(
                f"{self.place} was trained with another tokenizer than the data in "
                f"{datamodule.path}: prepare the text with its own "
                f"(headless prepare --tokenizer {self.place})"
            )


def open_source(
    place: str, with_head: bool, backbone: BackboneConfig, read_run: Callable[[str], Any]
) -> Source:
    """A run of ours, a checkpoint, or a model of Hugging Face's.

    `backbone` is the config's, which may say how the model computes and not what it is.
    """
    if backbone.preset or backbone.model_type or backbone.named:
        raise HeadlessError(
            f"{place} brings its architecture: leave out model.backbone"
            + ("." + next(iter(backbone.named)) if backbone.named else ".preset")
            + " and what else describes it"
        )
    attention = backbone.attn_implementation
    if is_run(place):
        source = _run_source(place, read_run(place), with_head, attention)
    else:
        source = _hugging_face_source(place, with_head, attention)
    recompute_activations(source.backbone, backbone.activation_checkpointing)
    return source


def begin_head(module: Any, source: Source | None, init_head: str) -> None:
    """Give a module's objective the head that `init_head` names, when its data are there."""
    if source is not None:
        source.check_vocabulary(datamodule_of(module))
    if init_head == "random":
        return
    head = source.head if source is not None else None
    if init_head == "embedding":
        head = module.lm_head()._replace(weight_VD=module.embedding_VD)
    assert head is not None
    try:
        with torch.no_grad():
            module.objective.take_head(head)
    except ValueError as error:
        raise HeadlessError(f"model.init_head {init_head}: {error}") from error


def _run_source(place: str, module: Any, with_head: bool, attn_implementation: str) -> Source:
    config = architecture(module.backbone.config, attn_implementation)
    head, words = module.lm_head() if with_head else None, module.objective.describe()
    sha256 = module.tokenizer_sha256
    return Source(place, module.backbone.train(), config, head, words, tokenizer_sha256=sha256)


def _hugging_face_source(place: str, with_head: bool, attn_implementation: str) -> Source:
    config = architecture(load_config(place), attn_implementation)
    backbone = load_pretrained(place, attn_implementation=attn_implementation)
    head = _linear_head(place, backbone) if with_head else None
    try:
        tokenizer = open_tokenizer(place)
    except HeadlessError:  # a model without a tokenizer: sizes are all there is to check
        tokenizer = None
    backbone = as_backbone(backbone).train()
    return Source(place, backbone, config, head, Path(place).name, tokenizer)


@torch.no_grad()
def _linear_head(place: str, backbone: Any) -> LMHead:
    """The head of a Hugging Face model, refused where it is more than a matrix and a bias."""
    auto_class = AutoModelForCausalLM if is_causal(backbone) else AutoModelForMaskedLM
    more = HeadlessError(
        f"the LM head of {place} is more than a matrix and a bias: begin with --model.init_head "
        "embedding, or name the run that it was exported from"
    )
    if getattr(load_config(place), "auto_map", None):
        raise more
    model: Any = load_pretrained(place, auto_class)
    linear = model.get_output_embeddings()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    head = LMHead(linear.weight, linear.bias, softcap=softcap)
    ids_1T = torch.arange(min(16, len(linear.weight)))[None]
    logits = model(input_ids=ids_1T).logits
    if not torch.allclose(head.logits(backbone(input_ids=ids_1T).last_hidden_state), logits, 1e-3):
        raise more
    return head
