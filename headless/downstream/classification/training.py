"""Training of a classifier, with any seed: its rate, loss and scores.

Shapes: N examples, B batch, C classes (1: regression).
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from pandas import DataFrame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, default_collate
from transformers import DataCollatorWithPadding
from transformers.trainer_pt_utils import LengthGroupedSampler

from headless.callbacks.progress_bar import StepProgressBar
from headless.downstream.classification.data import LabelledText, sha256
from headless.downstream.classification.model import (
    SHORTEST,
    Batch,
    Pooling,
    TextClassifier,
    encode,
    with_template,
)
from headless.downstream.classification.tasks import TextTask
from headless.downstream.language_model import LanguageModel
from headless.downstream.options import Recipe
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError, one_line, suggestion
from headless.progress import Display
from headless.training.devices import check_precision, choose_accelerator
from headless.training.optim import OptimizerConfig, ScheduleConfig, build_optimizer

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


def optimizer_of(recipe: Recipe, backbone: Any) -> OptimizerConfig:
    """AdamW with the usual betas; refuses rates that are none."""
    rate = fitting_rate(backbone, recipe.mode) if recipe.lr is None else recipe.lr
    return OptimizerConfig(
        lr=rate, betas=(0.9, 0.999), weight_decay=recipe.weight_decay, decay_embeddings=True
    )


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


def score(outputs_NC: Tensor, labels_N: Tensor, metrics: Sequence[str]) -> dict[str, float]:
    """Each metric of a split, from logits and class numbers, or from numbers [N, 1] and labels.

    `f1` is that of the second class, as GLUE's; `macro_f1` the mean over classes that occur. The
    correlation of a constant is NaN for numbers and 0 for classes.
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
        "rmse": lambda: sk.root_mean_squared_error(label, guess),
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
            deviation = self.model.get_buffer("center")[1]
            return F.mse_loss(outputs_BC[:, 0], labels_B.float()) / deviation**2
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
        scores = score(outputs_NC, labels_N, self.metrics)
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


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave, with the weights of the best epoch (the first is 1)."""

    seed: int  #: of the classifier's first weights, the dropout and the order of the examples
    best_epoch: int
    scores: dict[str, dict[str, float]]  #: by split ("validation", "test", "also"), by metric
    outputs: Tensor  #: logits [N, C] of the reported split, or numbers [N, 1] in the labels' units
    model: TextClassifier


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
        self.labels = {name: self._labels(part) for name, part in text.splits.items()}
        self.center = _center(self.labels["train"]) if task.regression else (0.0, 1.0)
        self.examples: dict[str, list[Any]] = {}
        self.truncated: dict[str, float] = {}
        for name, part in text.splits.items():
            texts = part["text"].tolist()
            second = part["pair"].tolist() if "pair" in part else None
            encoded, cut = encode(self.tokenizer, texts, second, self.max_length)
            labels = self.labels[name].tolist()
            pairs = zip(encoded, labels, strict=True)
            self.examples[name] = [{**example, "labels": label} for example, label in pairs]
            self.truncated[name] = cut / len(part)
        self._is_pooled = False
        self._trainer(Path(), Display(False))  # what it refuses shows before anything is written

    def _labels(self, examples: DataFrame) -> Tensor:
        if self.task.regression:
            return torch.tensor(examples["label"].tolist(), dtype=torch.float64)
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
                scores[name] = score(outputs[name], self.labels[name], self.metrics)
        outputs_NC = outputs[self.text.reported]
        return SeedResult(seed, epoch, scores, outputs_NC, module.model.cpu().eval())

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


def _center(labels_N: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the labels."""
    deviation = float(labels_N.std(correction=0))
    if not deviation > 0:
        raise HeadlessError("all labels of the training text are the same: nothing to learn")
    return float(labels_N.mean()), deviation
