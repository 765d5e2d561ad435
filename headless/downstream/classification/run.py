"""One fine-tuning, with any seed.

Shapes: N examples, C classes (1: regression).
"""

import copy
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from pandas import DataFrame
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from transformers import DataCollatorWithPadding
from transformers.trainer_pt_utils import LengthGroupedSampler

from headless.callbacks.progress_bar import StepProgressBar
from headless.downstream.classification.data import LabelledText, sha256
from headless.downstream.classification.model import (
    SHORTEST,
    Description,
    Pooling,
    TextClassifier,
    TrainedClassifier,
    encode,
    takes_segments,
    with_template,
)
from headless.downstream.classification.module import (
    ClassificationModule,
    Report,
    baseline,
    choose_metrics,
    optimizer_of,
    score,
)
from headless.downstream.classification.tasks import TextTask
from headless.downstream.language_model import LanguageModel
from headless.downstream.options import Recipe
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError, one_line
from headless.progress import Display
from headless.training.devices import check_precision, choose_accelerator


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave, with the weights of the best epoch (the first is 1)."""

    seed: int  #: of the classifier's first weights, the dropout and the order of the examples
    best_epoch: int
    scores: dict[str, dict[str, float]]  #: by split ("validation", "test", "also"), by metric
    outputs: Tensor  #: logits [N, C] of the reported split, or numbers [N, 1] in the labels' units
    trained: TrainedClassifier


class Finetuning:
    """A model, a task's text and a recipe, ready to be trained.

    `encoder` has no head, and is not changed. `recipe` has a learning rate after `__init__`;
    `truncated` is the share of the examples that were cut, by split.
    """

    def __init__(
        self, encoder: LanguageModel, task: TextTask, text: LabelledText, recipe: Recipe
    ) -> None:
        check_precision(recipe.precision)
        self.encoder, self.task, self.text = encoder, task, text
        self.recipe = replace(recipe, lr=optimizer_of(recipe, encoder.model).lr)
        self.metrics = choose_metrics(
            task.metrics, num_classes=len(text.classes), regression=task.regression
        )
        self.max_length = longest_input(
            encoder.model, encoder.tokenizer, recipe.max_length, usual=512, least=SHORTEST
        )
        default: Pooling = "last" if encoder.task == "causal" else "mean"
        self.pooling: Pooling = default if recipe.pooling == "auto" else recipe.pooling
        self.tokenizer = with_template(encoder.tokenizer)
        self.center = _center(text.splits["train"]) if task.regression else (0.0, 1.0)
        self.labels = {name: self._labels(part) for name, part in text.splits.items()}
        self.examples: dict[str, list[Any]] = {}
        self.truncated: dict[str, float] = {}
        segments = takes_segments(encoder.model)
        for name, part in text.splits.items():
            texts = part["text"].tolist()
            second = part["pair"].tolist() if "pair" in part else None
            encoded, cut = encode(self.tokenizer, texts, second, self.max_length, segments=segments)
            labels = self.labels[name].tolist()
            pairs = zip(encoded, labels, strict=True)
            self.examples[name] = [{**example, "labels": label} for example, label in pairs]
            self.truncated[name] = cut / len(part)
        self._is_pooled = False
        self._trainer(Path(), Display(False))  # what it refuses shows before anything is written

    def _labels(self, examples: DataFrame) -> Tensor:
        if self.task.regression:
            mean, deviation = self.center
            return (
                torch.tensor(examples["label"].tolist(), dtype=torch.float64) - mean
            ) / deviation
        number = {name: i for i, name in enumerate(self.text.classes)}
        return torch.tensor([number[label] for label in examples["label"]])

    def model(self) -> TextClassifier:
        """A classifier of random weights on the frozen backbone, or on a copy of it."""
        probe = self.recipe.mode == "probe"
        return TextClassifier(
            self.encoder.model if probe else copy.deepcopy(self.encoder.model),
            len(self.text.classes) or 1,
            self.pooling,
            dropout=self.recipe.dropout,
            frozen=probe,
            center=self.center,
        )

    def loader(self, name: str, seed: int | None = None) -> Any:
        """Batches of a split: in its order, or with a seed shuffled, of like lengths."""
        examples, size = self.examples[name], self.recipe.batch_size
        sampler = None
        if seed is not None:
            lengths = [len(example.get("input_ids", [0])) for example in examples]
            generator = torch.Generator().manual_seed(seed)
            sampler = LengthGroupedSampler(size, lengths=lengths, generator=generator)
        pad = DataCollatorWithPadding(self.tokenizer)
        collate: Any = default_collate if "pooled" in examples[0] else pad
        return DataLoader(examples, batch_size=size, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]

    def run(self, seed: int, directory: Path, report: Report, display: Display) -> SeedResult:
        """Train with one seed, choose the epoch on validation, then score the other splits once.

        `directory` is Lightning's root: nothing is written there.
        """
        seed_everything(seed, workers=True, verbose=False)
        model, trainer = self.model(), self._trainer(directory, display)
        if model.frozen:
            self._pool(model, trainer)
        module = ClassificationModule(model, self.recipe, self.metrics, report)
        trainer.fit(module, self.loader("train", seed), self.loader("validation"))
        assert module.best is not None
        epoch, best, state = module.best
        module.model.load_state_dict(state)
        outputs = {
            name: torch.cat(trainer.predict(module, self.loader(name))).float().cpu()  # type: ignore[arg-type]
            for name in {self.text.reported, "test", "also"} & self.examples.keys()
        }
        scores = {"validation": {name: best[name] for name in self.metrics}}
        for name in ("test", "also"):
            if name in outputs:
                scores[name] = score(outputs[name], self.labels[name], self.metrics, self.center)
        outputs_NC = outputs[self.text.reported]
        if self.task.regression:
            outputs_NC = outputs_NC * self.center[1] + self.center[0]
        description = Description(self.text.classes, self.pooling, self.max_length, self.task.name)
        trained = TrainedClassifier(module.model.cpu(), self.tokenizer, description)
        return SeedResult(seed, epoch, scores, outputs_NC, trained)

    def _trainer(self, directory: Path, display: Display) -> Trainer:
        try:
            return Trainer(
                default_root_dir=str(directory),
                accelerator=choose_accelerator(self.recipe.accelerator),
                devices=1,
                precision=self.recipe.precision,  # type: ignore[arg-type]
                max_epochs=self.recipe.epochs,
                gradient_clip_val=self.recipe.gradient_clip,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=display.is_wanted,
                num_sanity_val_steps=0,
                callbacks=[StepProgressBar(display)] if display.is_wanted else [],
            )
        except (ValueError, RuntimeError) as error:  # Lightning's own check of its options
            raise HeadlessError(one_line(error)) from error

    @torch.no_grad()
    def _pool(self, model: TextClassifier, trainer: Trainer) -> None:
        """Replace the examples by a frozen backbone's vectors of them."""
        if self._is_pooled:
            return
        device = trainer.strategy.root_device
        model.to(device).eval()
        for name in self.examples:
            pooled: list[Any] = []
            for batch in self.loader(name):
                with trainer.precision_plugin.forward_context():
                    rows_BD = model.pooled({k: v.to(device) for k, v in batch.items()})
                pairs = zip(rows_BD.float().cpu(), batch["labels"], strict=True)
                pooled += [{"pooled": row, "labels": label} for row, label in pairs]
            self.examples[name] = pooled
        model.train()
        self._is_pooled = True

    def facts(self) -> dict[str, Any]:
        """What results.json says of the data: counts, truncation and the baseline."""
        counts: dict[str, Any] = {}
        for name, part in self.text.splits.items():
            counts[name] = {"examples": len(part), "sha256": sha256(part)}
            if self.text.classes:
                frequencies = Counter(part["label"])
                counts[name]["classes"] = {c: frequencies[c] for c in self.text.classes}
        for name, count in self.text.unlabelled.items():
            counts.setdefault(name, {"examples": 0})["unlabelled"] = count
        reported = self.text.reported
        chance = baseline(self.labels["train"], self.labels[reported], len(self.text.classes))
        if "rmse" in chance:
            chance["rmse"] *= self.center[1]
        return {
            "splits": counts,
            "classes": list(self.text.classes),
            "metrics": list(self.metrics),
            "reported_split": reported,
            "notes": list(self.text.notes),
            "max_length": self.max_length,
            "truncated": self.truncated,
            "pooling": self.pooling,
            "lr": self.recipe.lr,
            "epochs": self.recipe.epochs,
            "baseline": chance,
        }


def _center(examples: DataFrame) -> tuple[float, float]:
    """Mean and standard deviation of the labels."""
    labels_N = torch.tensor(examples["label"].tolist(), dtype=torch.float64)
    deviation = float(labels_N.std(correction=0))
    if not deviation > 0:
        raise HeadlessError("all labels of the training text are the same: nothing to learn")
    return float(labels_N.mean()), deviation
