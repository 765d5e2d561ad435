"""Texts as token ids, a backbone with a linear classifier, and its directory.

Shapes: B batch, T time, D hidden size, N texts, C classes (1: regression).
"""

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, DataCollatorWithPadding

from headless.data.tokenizer import end_of_document
from headless.downstream.tokenizers import load_model_tokenizer
from headless.errors import HeadlessError, one_line
from headless.files import check_sums, new_directory, write_json, write_sums
from headless.models.pretrained import as_backbone

Batch = Mapping[str, Tensor]
Pooling = Literal["first", "mean", "last"]
WEIGHTS, DESCRIPTION = "model.safetensors", "classifier.json"
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


@dataclass
class TrainedClassifier:
    """A fine-tuned classifier with its tokenizer."""

    model: TextClassifier
    tokenizer: Any
    classes: tuple[str, ...]  #: empty for regression
    max_length: int
    task: str

    def __post_init__(self) -> None:
        self.model.eval()
        self.tokenizer = with_template(self.tokenizer)

    @torch.no_grad()
    def logits(
        self, texts: list[str], pairs: list[str] | None = None, *, batch_size: int = 32
    ) -> Tensor:
        """Logits [N, C], float32; for regression numbers [N, 1]."""
        device = self.model.classifier.weight.device
        encoded, _ = encode(self.tokenizer, texts, pairs, self.max_length)
        collate: Any = DataCollatorWithPadding(self.tokenizer)
        parts = [encoded[i : i + batch_size] for i in range(0, len(encoded), batch_size)]
        return torch.cat([self.model(collate(part).to(device)) for part in parts])

    def predict(self, texts: list[str], pairs: list[str] | None = None) -> list[Any]:
        """The likeliest class's name, or the number, for each text or pair."""
        logits_NC = self.logits(texts, pairs)
        if not self.classes:
            return logits_NC[:, 0].tolist()
        return [self.classes[i] for i in logits_NC.argmax(1).tolist()]


def save_classifier(trained: TrainedClassifier, directory: Path) -> None:
    """Weights (safetensors), the backbone's config, the tokenizer, `classifier.json`, checksums."""
    with new_directory(directory, option="directory") as place:
        trained.model.backbone.config.save_pretrained(place)
        trained.tokenizer.save_pretrained(place)
        state = {k: v.detach().cpu().contiguous() for k, v in trained.model.state_dict().items()}
        save_file(state, place / WEIGHTS, metadata={"format": "pt"})
        values = {name: getattr(trained, name) for name in ("classes", "max_length", "task")}
        write_json(place / DESCRIPTION, values | {"pooling": trained.model.pooling})
        write_sums(place)


def load_classifier(directory: str | Path) -> TrainedClassifier:
    """A classifier that `headless finetune` saved: its output directory, or `model` in it."""
    place = Path(directory)
    place = place / "model" if (place / "model" / DESCRIPTION).is_file() else place
    if not (place / DESCRIPTION).is_file():
        raise HeadlessError(f"{place} holds no classifier: headless finetune makes one")
    check_sums(place)
    try:
        values = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
        classes = tuple(values["classes"])
        backbone = as_backbone(AutoModel.from_config(AutoConfig.from_pretrained(place)))
        model = TextClassifier(backbone, len(classes) or 1, values["pooling"])
        model.load_state_dict(load_file(place / WEIGHTS))
        facts = (classes, int(values["max_length"]), str(values["task"]))
    except Exception as error:  # noqa: BLE001 - the libraries raise anything
        line = one_line(error, 200)
        raise HeadlessError(f"the classifier in {place} cannot be loaded: {line}") from error
    return TrainedClassifier(model, load_model_tokenizer(place), *facts)
