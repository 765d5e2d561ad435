"""A classifier in training. Shapes: N examples, B batch, C classes (1: regression)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from headless.downstream.classification.model import Batch, TextClassifier
from headless.downstream.classification.scores import class_weights, classification_loss, score
from headless.downstream.options import Recipe
from headless.training.optim import AdamWConfig, ScheduleConfig, build_optimizer

# BERT-base's usual rate for its 85 million weights outside the embeddings, and the bounds.
USUAL_RATE, USUAL_SIZE = 2e-5, 85e6
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-3
PROBE_RATE = 1e-2  # of a linear layer on a frozen backbone

Report = Callable[[int, int, dict[str, float]], None]  # epoch (from 1), step, values


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


def optimizer_of(recipe: Recipe, backbone: Any) -> AdamWConfig:
    """AdamW with the usual betas; refuses rates that are none."""
    rate = fitting_rate(backbone, recipe.mode) if recipe.lr is None else recipe.lr
    return AdamWConfig(rate, (0.9, 0.999), 1e-8, recipe.weight_decay, decay_embeddings=True)


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
        report: Report = lambda epoch, step, values: None,
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
        return classification_loss(outputs_BC, labels_B, self.recipe.balanced, self.weight_C)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(self.model(batch), batch["labels"])
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Outputs are kept: some metrics are no means over batches."""
        self._seen.append((self.model(batch).detach(), batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Score the split; keep the weights of the best epoch."""
        outputs_NC, labels_N = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        scores = score(outputs_NC, labels_N, self.metrics, self.model.get_buffer("center").tolist())
        scores["loss"] = float(self.loss(outputs_NC, labels_N))
        epoch, main = self.current_epoch + 1, self.metrics[0]
        if self.best is None or _rank(main, scores) > _rank(main, self.best[1]):
            state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            self.best = epoch, scores, state
        values = {
            "train/loss": float(torch.stack(self._losses).mean()),
            "optim/lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            **{f"val/{name}": value for name, value in scores.items()},
        }
        self._seen.clear()
        self._losses.clear()
        self.report(epoch, self.global_step, values)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm, also under bf16-mixed, where Lightning refuses a fused optimizer."""
        nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Outputs [B, C]."""
        return self.model(batch)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped at every update."""
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(self.recipe.warmup * steps)
        optimizer, schedule = build_optimizer(
            self.model,
            optimizer_of(self.recipe, self.model.backbone),
            ScheduleConfig(self.recipe.schedule, warmup, floor=0.0),
            steps,
        )
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def _rank(metric: str, scores: dict[str, float]) -> tuple[float, float]:
    """The higher the better; equal ones by their loss; undefined ones last."""
    value = scores[metric] * (-1.0 if metric == "rmse" else 1.0)
    return (-math.inf if math.isnan(value) else value), -scores["loss"]
