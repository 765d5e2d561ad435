"""Fine-tuning a classifier: its recipe, its batches and its LightningModule.

Shapes: B batch, C classes (1: regression).
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from headless.downstream.classification.encoding import LengthBatches, collate
from headless.downstream.classification.model import Pooling, TextClassifier
from headless.downstream.classification.scores import (
    Balanced,
    class_weights,
    classification_loss,
    score,
)
from headless.errors import HeadlessError
from headless.training.devices import check_precision
from headless.training.optim import AdamWConfig, ScheduleConfig, build_optimizer

# BERT-base's usual rate for its 85 million weights outside the embeddings, and the bounds.
USUAL_RATE, USUAL_SIZE = 2e-5, 85e6
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-3
PROBE_RATE = 1e-2  # of a linear layer on a frozen backbone


def fitting_rate(backbone: Any, mode: str) -> float:
    """A peak learning rate for a model of this size, with two digits.

    A small model takes, and needs, a larger one: it falls as the number of weights outside the
    embeddings grows, from the highest to the lowest. A frozen backbone's has no say.
    """
    if mode == "probe":
        return PROBE_RATE
    table = sum(p.numel() for p in backbone.get_input_embeddings().parameters())
    weights = sum(p.numel() for p in backbone.parameters()) - table
    rate = USUAL_RATE * USUAL_SIZE / max(1, weights)
    return float(f"{min(HIGHEST_RATE, max(LOWEST_RATE, rate)):.1e}")


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Args:
        mode: "full" trains every weight, "probe" the linear layer on a frozen backbone.
        epochs: over the training text; the one that is best on the validation split is kept.
        batch_size: examples.
        lr: peak learning rate of AdamW (betas 0.9 and 0.999); None: see `fitting_rate`.
        weight_decay: of matrices and embeddings; never of biases and norms.
        warmup: share of all steps in which the rate rises linearly.
        schedule: after the warm-up; "linear" and "cosine" fall to zero.
        balanced: classes of equal weight; see `classification_loss`.
        pooling: "auto": the last token of decoders, the mean over the tokens of encoders.
        dropout: before the linear layer.
        gradient_clip: largest norm of a gradient.
        precision: as Lightning's Trainer takes it.
        accelerator: as Lightning's Trainer takes it.
    """

    mode: Literal["full", "probe"] = "full"
    epochs: int = 3
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    balanced: Balanced = "none"
    pooling: Literal["auto", "first", "mean", "last"] = "auto"
    dropout: float = 0.1
    gradient_clip: float = 1.0
    precision: str = "32-true"
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise HeadlessError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise HeadlessError("dropout and warmup must lie in [0, 1)")
        if not self.gradient_clip > 0:
            raise HeadlessError(f"gradient_clip must be positive, got {self.gradient_clip}")
        check_precision(self.precision)
        AdamWConfig(lr=PROBE_RATE if self.lr is None else self.lr, weight_decay=self.weight_decay)

    def pooling_for(self, task: str) -> Pooling:
        """Which tokens speak for a text: `task` is the backbone's, "causal" or "masked"."""
        if self.pooling != "auto":
            return self.pooling
        return "last" if task == "causal" else "mean"


class ClassificationDataModule(LightningDataModule):
    """Encoded examples as batches of like lengths.

    Args:
        splits: lists of `{"input_ids": [...], "label": ...}` or `{"pooled": [D], "label": ...}`.
        batch_size: examples; scoring takes as many.
        pad_token_id: what fills a batch up.
        seed: of the order of training.
    """

    def __init__(
        self, splits: dict[str, list[Any]], batch_size: int, pad_token_id: int, seed: int
    ) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.pad_token_id = pad_token_id
        self.seed = seed

    def loader(self, name: str, seed: int | None = None) -> Any:
        """Batches of a split: in a fixed order without a seed."""
        examples = self.splits[name]
        lengths = [len(e["input_ids"]) if "input_ids" in e else 1 for e in examples]
        return DataLoader(
            examples,  # type: ignore[arg-type]  # a list is a map-style data set
            batch_sampler=LengthBatches(lengths, self.batch_size, seed),
            collate_fn=partial(collate, pad_token_id=self.pad_token_id),
        )

    def train_dataloader(self) -> Any:
        """Another order in every epoch."""
        return self.loader("train", self.seed)

    def val_dataloader(self) -> Any:
        """The validation split."""
        return self.loader("validation")

    def scored(self, name: str, outputs: list[Tensor]) -> Tensor:
        """Outputs [N, C] of a split in its own order, from those of the batches of `loader`."""
        order = [i for batch in self.loader(name).batch_sampler for i in batch]
        outputs_NC = torch.cat(outputs).float().cpu()
        return outputs_NC[torch.argsort(torch.tensor(order))]


class ClassificationModule(LightningModule):
    """A classifier with its loss, its optimizer and its scores on the validation split.

    Args:
        model: the classifier.
        recipe: how it is trained.
        metrics: to score; the first chooses the epoch (all but rmse: the higher the better).
        labels_train: the training split's, for the weights of the classes.
        report: called after each epoch with its number (the first is 1) and scores.

    Attributes:
        best: (epoch, scores, weights on the CPU) of the best epoch; ties go to the earlier one.
    """

    def __init__(
        self,
        model: TextClassifier,
        recipe: Recipe,
        metrics: tuple[str, ...],
        labels_train: Tensor,
        report: Any = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.metrics = metrics
        self.report = report
        self.best: tuple[int, dict[str, float], dict[str, Tensor]] | None = None
        outputs = model.classifier.out_features
        self.regression = outputs == 1
        weight_C = None if self.regression else class_weights(labels_train, outputs)
        self.register_buffer("weight_C", weight_C, persistent=False)
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._losses: list[Tensor] = []

    def loss(self, outputs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Mean squared error in standard deviations, or cross-entropy."""
        if self.regression:
            return F.mse_loss(outputs_BC[:, 0], labels_B.float())
        weight_C = self.weight_C if isinstance(self.weight_C, Tensor) else None
        return classification_loss(outputs_BC, labels_B, self.recipe.balanced, weight_C)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(self.model(batch), batch["labels"])
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Outputs are kept: some metrics are no means over batches."""
        self._seen.append((self.model(batch).detach(), batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Score the split; keep the weights of the best epoch."""
        outputs_NC = torch.cat([outputs for outputs, _ in self._seen])
        labels_N = torch.cat([labels for _, labels in self._seen])
        center = self.model.get_buffer("center").tolist()
        scores = score(outputs_NC, labels_N, self.metrics, center)
        scores["loss"] = float(self.loss(outputs_NC, labels_N))
        self._seen.clear()
        epoch = self.current_epoch + 1
        main = self.metrics[0]
        if self.best is None or _rank(main, scores) > _rank(main, self.best[1]):
            state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            self.best = epoch, scores, state
        train_loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if self.report is not None:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            point = {f"val/{name}": value for name, value in scores.items()}
            self.report(
                epoch, self.global_step, {"train/loss": train_loss, "optim/lr": rate, **point}
            )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm, also under bf16-mixed, where Lightning refuses a fused optimizer."""
        nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Outputs [B, C]."""
        return self.model(batch)

    def restore_best(self) -> tuple[int, dict[str, float]]:
        """Go back to the best epoch's weights; returns its number and scores."""
        assert self.best is not None
        epoch, scores, state = self.best
        self.model.load_state_dict(copy.copy(state))
        return epoch, scores

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped at every update."""
        steps = int(self.trainer.estimated_stepping_batches)
        recipe = self.recipe
        rate = fitting_rate(self.model.backbone, recipe.mode) if recipe.lr is None else recipe.lr
        optimizer, schedule = build_optimizer(
            self.model,
            AdamWConfig(rate, (0.9, 0.999), 1e-8, recipe.weight_decay, decay_embeddings=True),
            ScheduleConfig(recipe.schedule, round(recipe.warmup * steps), floor=0.0),
            steps,
        )
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def _rank(metric: str, scores: dict[str, float]) -> tuple[float, float]:
    """The higher the better; equal ones by their loss; undefined ones last."""
    value = scores[metric] * (-1.0 if metric == "rmse" else 1.0)
    return (-math.inf if math.isnan(value) else value), -scores["loss"]
