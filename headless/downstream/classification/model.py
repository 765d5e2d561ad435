"""Texts as token ids, a backbone with a linear classifier, and its directory.

Shapes: B batch, T time, D hidden size, N texts, C classes (1: regression).
"""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from headless.data.tokenizer import end_of_document
from headless.files import new_directory, write_json, write_sums
from headless.models.pretrained import without_bars

Batch = Mapping[str, Tensor]
Pooling = Literal["first", "mean", "last"]
WEIGHTS, DESCRIPTION = "classifier.safetensors", "classifier.json"
SHORTEST = 4  # tokens: an end of document, one of each text and one between them


def with_template(tokenizer: Any) -> Any:
    """A fast tokenizer that adds special tokens to texts and pairs as the model saw them.

    One that has a template (BERT's `[CLS] a [SEP] b [SEP]`) is given back. For others the
    end-of-document token, which stood before every document of the training text, stands before
    each text.
    """
    if tokenizer("a").input_ids != tokenizer("a", add_special_tokens=False).input_ids:
        return tokenizer
    end = end_of_document(tokenizer)
    name = tokenizer.convert_ids_to_tokens(end)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[name, "$A"], pair=[name, "$A", name, "$B"], special_tokens=[(name, end)]
    )
    return tokenizer


def encode(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """One `{"input_ids": [...], ...}` of at most `max_length` tokens an example; how many were cut.

    Pairs lose tokens at the end of the longer text.
    """
    uncut = tokenizer(texts, pairs, verbose=False).input_ids
    columns = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, sum(len(ids) > max_length for ids in uncut)


def pool(hidden_BTD: Tensor, attention_mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """One vector [B, D] a text from its real tokens; padding stands at the right."""
    if pooling == "first":
        return hidden_BTD[:, 0]
    if pooling == "last":
        last_B = attention_mask_BT.sum(1) - 1
        return hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
    mask_BT1 = attention_mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
    return (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


class TextClassifier(nn.Module):
    """Hidden states, pooled, through dropout and a linear layer.

    A frozen backbone is not trained, and never drops out. In regression the linear layer gives a
    label in units of its `center`: the mean and the deviation of the training labels.
    """

    def __init__(
        self,
        backbone: Any,
        num_outputs: int,
        pooling: Pooling,
        *,
        dropout: float = 0.0,
        frozen: bool = False,
        center: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.backbone, self.pooling, self.frozen = backbone, pooling, frozen
        # What it reads: some tell the texts of a pair apart by `token_type_ids`.
        self.inputs = inspect.signature(backbone.forward).parameters.keys()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.config.hidden_size, num_outputs)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("center", torch.tensor(center))
        if frozen:
            self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "TextClassifier":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def pooled(self, batch: Batch) -> Tensor:
        """What the classifier sees [B, D]."""
        inputs = {key: batch[key] for key in batch.keys() & self.inputs if key != "labels"}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            hidden_BTD = self.backbone(**inputs).last_hidden_state
        return pool(hidden_BTD, batch["attention_mask"], self.pooling)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]; for regression numbers [B, 1]."""
        pooled_BD = batch["pooled"] if "pooled" in batch else self.pooled(batch)
        with torch.autocast(pooled_BD.device.type, enabled=False):  # in bf16 classes would tie
            dropped_BD = self.dropout(pooled_BD).to(self.classifier.weight.dtype)
            mean, deviation = self.get_buffer("center")
            return self.classifier(dropped_BD).float() * deviation + mean


def save_classifier(
    model: TextClassifier, tokenizer: Any, facts: dict[str, Any], directory: Path
) -> None:
    """The backbone as a Hugging Face directory, with what classifies its pooled states beside it.

    `classifier.safetensors` holds `weight` [C, D] and `bias` [C], `classifier.json` the pooling and
    the facts.
    """
    mean, deviation = model.get_buffer("center")
    head = {"weight": model.classifier.weight * deviation}
    head["bias"] = model.classifier.bias * deviation + mean
    with new_directory(directory, option="directory") as place, without_bars():
        model.backbone.save_pretrained(place)
        tokenizer.save_pretrained(place)
        save_file({k: v.detach().cpu() for k, v in head.items()}, place / WEIGHTS)
        write_json(place / DESCRIPTION, facts | {"pooling": model.pooling})
        write_sums(place)
