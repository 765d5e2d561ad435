"""Training of a classifier: its rate, loss and scores.

Shapes: N examples, B batch, C classes (1: regression).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from headless.downstream.classification.model import Batch, TextClassifier
from headless.downstream.options import Recipe
from headless.errors import HeadlessError, suggestion
from headless.training.optim import AdamWConfig, ScheduleConfig, build_optimizer

# BERT-base's usual rate for its 85 million weights outside the embeddings, and the bounds.
USUAL_RATE, USUAL_SIZE = 2e-5, 85e6
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-3
PROBE_RATE = 1e-2  # of a linear layer on a frozen backbone
CLASS_METRICS = ("accuracy", "f1", "macro_f1", "matthews")
NUMBER_METRICS = ("spearman", "pearson", "rmse")

Report = Callable[[int, int, dict[str, float]], None]  # epoch (from 1), step, values


def fitting_rate(backbone: Any, mode: str) -> float:
    """A peak learning rate, with two digits: it falls with the number of weights outside the
    embeddings, from the highest to the lowest.
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


def classification_loss(logits_BC: Tensor, labels_B: Tensor, balanced: bool) -> Tensor:
    """Cross-entropy: the mean over the examples, or over the classes of the batch of each one's
    mean (the paper, E.2)."""
    if not balanced:
        return F.cross_entropy(logits_BC, labels_B)
    count_C = torch.bincount(labels_B, minlength=logits_BC.shape[1])
    # Divided by the sum of the examples' weights, which is the number of classes in the batch.
    return F.cross_entropy(logits_BC, labels_B, (1.0 / count_C.clamp_min(1)).to(logits_BC))


def choose_metrics(first: Sequence[str], *, num_classes: int, regression: bool) -> tuple[str, ...]:
    """All metrics that suit the labels, the `first` ones before the others."""
    suitable = list(NUMBER_METRICS if regression else CLASS_METRICS)
    if num_classes != 2 and not regression:
        suitable.remove("f1")
    for name in first:
        if name not in suitable:
            raise HeadlessError(
                f"the metric {name!r} is none of this task's; " + suggestion(name, suitable, "they")
            )
    return tuple(dict.fromkeys([*first, *suitable]))


def score(
    outputs_NC: Tensor, labels_N: Tensor, metrics: Sequence[str], center: Any = (0.0, 1.0)
) -> dict[str, float]:
    """Each metric of a split, from logits and class numbers, or from numbers [N, 1] and labels.

    `f1` is that of the second class, as GLUE's; `macro_f1` the mean over classes that occur. The
    correlation of a constant is NaN for numbers and 0 for classes. `center` holds the mean and
    deviation of the labels, whose units `rmse` has.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn import metrics as sk

    is_regression = NUMBER_METRICS[0] in metrics
    guesses = outputs_NC[:, 0].double() if is_regression else outputs_NC.argmax(1)
    guess, label = guesses.cpu().numpy(), labels_N.to(guesses).cpu().numpy()
    constant = is_regression and (len(label) < 2 or 0 in (label.std(), guess.std()))
    functions: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: sk.accuracy_score(label, guess),
        "f1": lambda: sk.f1_score(label, guess, zero_division=0),
        "macro_f1": lambda: sk.f1_score(label, guess, average="macro", zero_division=0),
        "matthews": lambda: sk.matthews_corrcoef(label, guess),
        "spearman": lambda: math.nan if constant else spearmanr(label, guess).statistic,
        "pearson": lambda: math.nan if constant else pearsonr(label, guess).statistic,
        "rmse": lambda: sk.root_mean_squared_error(label, guess) * center[1],
    }
    return {name: float(functions[name]()) for name in metrics}


def baseline(labels_train: Tensor, labels_N: Tensor, num_classes: int) -> dict[str, float]:
    """The score of always giving the training split's most frequent class, or its mean."""
    if not num_classes:
        error_N = labels_N.double() - labels_train.double().mean()
        return {"rmse": float(error_N.square().mean().sqrt())}
    majority = torch.bincount(labels_train, minlength=num_classes).argmax()
    return {"accuracy": float((labels_N == majority).double().mean())}


class ClassificationModule(LightningModule):
    """A classifier with its loss, its optimizer and its scores on the validation split.

    The first of `metrics` chooses the epoch; `best` is the number, the scores and the weights (on
    the CPU) of the best one, the earlier of equal ones.
    """

    def __init__(
        self,
        model: TextClassifier,
        recipe: Recipe,
        metrics: tuple[str, ...],
        report: Report = lambda epoch, step, values: None,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.metrics, self.report = model, recipe, metrics, report
        self.best: tuple[int, dict[str, float], dict[str, Tensor]] | None = None
        self._outputs: list[tuple[Tensor, Tensor]] = []
        self._losses: list[Tensor] = []

    def loss(self, outputs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Mean squared error in standard deviations, or cross-entropy."""
        if outputs_BC.shape[1] == 1:
            return F.mse_loss(outputs_BC[:, 0], labels_B.float())
        return classification_loss(outputs_BC, labels_B, self.recipe.balanced == "batch")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.model(batch), batch["labels"])
        self._losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the outputs: some metrics are no means over batches."""
        self._outputs.append((self.model(batch).detach(), batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Score the split; keep the weights of the best epoch."""
        outputs_NC, labels_N = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        scores = score(outputs_NC, labels_N, self.metrics, self.model.get_buffer("center").tolist())
        scores["loss"] = float(self.loss(outputs_NC, labels_N))
        epoch, main = self.current_epoch + 1, self.metrics[0]
        if self.best is None or rank(main, scores) > rank(main, self.best[1]):
            state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            self.best = epoch, scores, state
        values = {
            "train/loss": float(torch.stack(self._losses).mean()),
            "optim/lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            **{f"val/{name}": value for name, value in scores.items()},
        }
        self._outputs.clear()
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
        return self.model(batch)

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(self.recipe.warmup * steps)
        optimizer, schedule = build_optimizer(
            self.model,
            optimizer_of(self.recipe, self.model.backbone),
            ScheduleConfig(self.recipe.schedule, warmup, floor=0.0),
            steps,
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def rank(metric: str, scores: dict[str, float]) -> tuple[float, float]:
    """The higher the better; equal ones by their loss, if it is there; undefined ones last."""
    value = scores[metric] * (-1.0 if metric == "rmse" else 1.0)
    return (-math.inf if math.isnan(value) else value), -scores.get("loss", 0.0)
