"""One fine-tuning with several seeds: everything but where its results are written.

Shapes: N examples, C classes (1: regression).
"""

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from headless.callbacks.progress_bar import StepProgressBar
from headless.downstream.classification.data import Examples, LabelledText
from headless.downstream.classification.encoding import TextEncoder, collate, text_length
from headless.downstream.classification.model import (
    Description,
    TextClassifier,
    TrainedClassifier,
    wants_segments,
)
from headless.downstream.classification.module import (
    ClassificationDataModule,
    ClassificationModule,
    Recipe,
    fitting_rate,
)
from headless.downstream.classification.scores import baseline, choose_metrics, score
from headless.downstream.classification.tasks import TextTask
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError
from headless.training.devices import choose_accelerator

Report = Callable[[int, int, dict[str, float]], None]  # epoch (from 1), step, values


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave.

    Args:
        seed: of the classifier's first weights, the dropout and the order of the examples.
        best_epoch: the first is 1.
        scores: by split, then by metric: "validation", and "test" and "also" where they are.
        outputs: logits [N, C] of the reported split, or numbers [N, 1] in the labels' units.
        trained: the classifier with the best epoch's weights.
    """

    seed: int
    best_epoch: int
    scores: dict[str, dict[str, float]]
    outputs: Tensor
    trained: TrainedClassifier


class Finetuning:
    """A model, a task's text and a recipe, ready to be trained with any seed.

    Args:
        encoder: the pre-trained model; it stays as it is.
        task: what is scored.
        text: its examples.
        recipe: how it is trained.
        max_length: the most tokens of an example; the model's positions where it is None.

    Attributes:
        recipe: with its learning rate.
        metrics: names; the first chooses the epoch.
        truncated: share of examples that were cut, by split.

    Raises:
        HeadlessError: a metric, a length, a precision or an accelerator that does not fit.
    """

    def __init__(
        self,
        encoder: LanguageModel,
        task: TextTask,
        text: LabelledText,
        recipe: Recipe,
        max_length: int | None = None,
    ) -> None:
        if recipe.lr is None:
            recipe = replace(recipe, lr=fitting_rate(encoder.model, recipe.mode))
        self.encoder, self.task, self.text, self.recipe = encoder, task, text, recipe
        num_classes = len(text.classes)
        self.metrics = choose_metrics(
            task.metrics, num_classes=num_classes, regression=task.regression
        )
        self.max_length = text_length(encoder.model, encoder.tokenizer, max_length)
        encode = TextEncoder(encoder.tokenizer, self.max_length, wants_segments(encoder.model))
        self.center = _center(text.splits["train"]) if task.regression else (0.0, 1.0)
        self.labels = {name: self._labels(part) for name, part in text.splits.items()}
        self.examples: dict[str, list[Any]] = {}
        self.truncated: dict[str, float] = {}
        for name, part in text.splits.items():
            encoded, cut = encode(part.texts, part.pairs)
            labels = self.labels[name].tolist()
            self.examples[name] = [
                {**e, "label": label} for e, label in zip(encoded, labels, strict=True)
            ]
            self.truncated[name] = cut / len(part)
        self._is_pooled = False
        self._trainer(Path(), False)  # refuses what it cannot run with before anything is written

    def _labels(self, examples: Examples) -> Tensor:
        if self.task.regression:
            mean, deviation = self.center
            return (torch.tensor(examples.labels, dtype=torch.float64) - mean) / deviation
        number = {name: i for i, name in enumerate(self.text.classes)}
        return torch.tensor([number[label] for label in examples.labels])

    def _description(self) -> Description:
        pooling = self.recipe.pooling_for(self.encoder.task)
        return Description(self.text.classes, pooling, self.max_length, self.task.name)

    def model(self) -> TextClassifier:
        """A fresh classifier, by torch's random numbers, on a copy of the backbone."""
        probe = self.recipe.mode == "probe"
        return TextClassifier(
            self.encoder.model if probe else copy.deepcopy(self.encoder.model),
            len(self.text.classes) or 1,
            self.recipe.pooling_for(self.encoder.task),
            dropout=self.recipe.dropout,
            frozen=probe,
            center=self.center,
        )

    def run(self, seed: int, directory: Path, report: Report, *, bar: bool = False) -> SeedResult:
        """Train with one seed, choose the epoch on validation, then score the test split once.

        Args:
            seed: see `SeedResult`.
            directory: Lightning's root; nothing is written there.
            report: called after every epoch.
            bar: a progress bar on the terminal.

        Raises:
            HeadlessError: the loss is no number any more; no such accelerator.
        """
        seed_everything(seed, workers=True, verbose=False)
        module = ClassificationModule(
            self.model().train(), self.recipe, self.metrics, self.labels["train"], report
        )
        trainer = self._trainer(directory, bar)
        if self.recipe.mode == "probe":
            self._pool(module.model, trainer)
        data = ClassificationDataModule(
            self.examples, self.recipe.batch_size, self.encoder.tokenizer.pad_token_id, seed
        )
        trainer.fit(module, datamodule=data)
        if trainer.interrupted:
            raise KeyboardInterrupt
        epoch, validation = module.restore_best()
        if not math.isfinite(validation["loss"]):
            raise HeadlessError("the loss is no number any more: lower --lr")
        scores = {"validation": {name: validation[name] for name in self.metrics}}
        outputs_NC = torch.empty(0)
        for name in ("validation", "also", "test"):
            if name in self.examples and (name != "validation" or self.text.reported == name):
                with warnings.catch_warnings():
                    # Our batches hold every example once, in an order that `scored` undoes.
                    warnings.filterwarnings("ignore", ".*custom batch sampler.*")
                    predicted: Any = trainer.predict(module, data.loader(name))
                split_NC = data.scored(name, predicted)
                scores[name] = score(split_NC, self.labels[name], self.metrics, self.center)
                if name == self.text.reported:
                    outputs_NC = split_NC
        if self.task.regression:
            outputs_NC = outputs_NC * self.center[1] + self.center[0]
        trained = TrainedClassifier(module.model.cpu(), self.encoder.tokenizer, self._description())
        return SeedResult(seed, epoch, scores, outputs_NC, trained)

    def _trainer(self, directory: Path, bar: bool) -> Trainer:
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
                enable_progress_bar=bar,
                num_sanity_val_steps=0,
                callbacks=[StepProgressBar()] if bar else [],
            )
        except (ValueError, RuntimeError) as error:  # Lightning's own check of its options
            raise HeadlessError(" ".join(str(error).split())) from error

    @torch.no_grad()
    def _pool(self, model: TextClassifier, trainer: Trainer) -> None:
        """A frozen backbone sees every text once: the examples become what it says of them."""
        if self._is_pooled:
            return
        device = trainer.strategy.root_device
        model.to(device).eval()
        pad, size = self.encoder.tokenizer.pad_token_id, self.recipe.batch_size
        for name, examples in self.examples.items():
            batches = ClassificationDataModule(self.examples, size, pad, 0).loader(name)
            pooled: list[Any] = []
            for indices in batches.batch_sampler:
                batch = collate([examples[i] for i in indices], pad)
                with trainer.precision_plugin.forward_context():
                    rows_BD = model.pooled({k: v.to(device) for k, v in batch.items()})
                pooled += zip(indices, rows_BD.float().cpu(), strict=True)
            self.examples[name] = [
                {"pooled": row, "label": examples[i]["label"]}
                for i, row in sorted(pooled, key=lambda item: item[0])
            ]
        model.train()
        self._is_pooled = True

    def facts(self) -> dict[str, Any]:
        """What results.json says of the data: counts, truncation and the baseline."""
        splits = self.text.splits
        counts: dict[str, Any] = {}
        for name, part in splits.items():
            counts[name] = {"examples": len(part), "sha256": part.sha256}
            if self.text.classes:
                seen = Counter(part.labels)
                counts[name]["classes"] = {c: seen[c] for c in self.text.classes}
        for name, hidden in self.text.unlabelled.items():
            counts.setdefault(name, {"examples": 0})["unlabelled"] = hidden
        reported = self.text.reported
        found = baseline(self.labels["train"], self.labels[reported], len(self.text.classes))
        if "rmse" in found:
            found["rmse"] *= self.center[1]
        return {
            "splits": counts,
            "classes": list(self.text.classes),
            "metrics": list(self.metrics),
            "reported_split": reported,
            "notes": list(self.text.notes),
            "max_length": self.max_length,
            "truncated": self.truncated,
            "pooling": self.recipe.pooling_for(self.encoder.task),
            "lr": self.recipe.lr,
            "epochs": self.recipe.epochs,
            "baseline": found,
        }


def _center(examples: Examples) -> tuple[float, float]:
    """Mean and standard deviation of the labels.

    Raises:
        HeadlessError: they are all the same.
    """
    labels_N = torch.tensor(examples.labels, dtype=torch.float64)
    deviation = float(labels_N.std(correction=0))
    if not deviation > 0:
        raise HeadlessError("all labels of the training text are the same: nothing to learn")
    return float(labels_N.mean()), deviation
