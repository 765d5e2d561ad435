"""Losses and metrics of classifiers. Shapes: N examples, B batch, C classes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torchmetrics.functional as tm
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)

from headless.downstream.classification.tasks import suggestion
from headless.errors import HeadlessError

Balanced = Literal["none", "train", "batch"]
CLASS_METRICS = ("accuracy", "f1", "macro_f1", "matthews")
NUMBER_METRICS = ("spearman", "pearson", "rmse")


def classification_loss(
    logits_BC: Tensor, labels_B: Tensor, balanced: Balanced, weight_C: Tensor | None = None
) -> Tensor:
    """Cross-entropy, every example or every class with the same weight.

    Args:
        logits_BC: as the model gives them: no softmax before.
        labels_B: class numbers.
        balanced: "none": the mean over examples. "batch": the mean over the classes of the batch
            of each class's mean (the paper, E.2: frequencies estimated from the batch). "train":
            examples weighted by `weight_C`, divided by their number, so that the expectation is
            that of classes of equal frequency.
        weight_C: see `class_weights`.
    """
    if balanced == "none":
        return F.cross_entropy(logits_BC, labels_B)
    if balanced == "train":
        assert weight_C is not None
        return F.cross_entropy(logits_BC, labels_B, weight_C, reduction="sum") / len(labels_B)
    count_C = torch.bincount(labels_B, minlength=logits_BC.shape[1])
    # Divided by the sum of the examples' weights, which is the number of classes in the batch.
    return F.cross_entropy(logits_BC, labels_B, (1.0 / count_C.clamp_min(1)).to(logits_BC))


def class_weights(labels_N: Tensor, num_classes: int) -> Tensor:
    """N / (C · count) [C], with which every class weighs the same; zero where none occurs."""
    count_C = torch.bincount(labels_N, minlength=num_classes)
    present = count_C > 0
    weight_C = len(labels_N) / (present.sum() * count_C.clamp_min(1))
    return torch.where(present, weight_C, 0.0)


def choose_metrics(wanted: Sequence[str], *, num_classes: int, regression: bool) -> tuple[str, ...]:
    """What to score: what is wanted first, then everything else that suits the labels."""
    suitable = list(NUMBER_METRICS if regression else CLASS_METRICS)
    if num_classes != 2 and not regression:
        suitable.remove("f1")
    for name in wanted:
        if name not in suitable:
            raise HeadlessError(
                f"the metric {name!r} is none of this task's; " + suggestion(name, suitable, "they")
            )
    return tuple(dict.fromkeys([*wanted, *suitable]))


def score(
    outputs_NC: Tensor, labels_N: Tensor, metrics: Sequence[str], center: Any = (0.0, 1.0)
) -> dict[str, float]:
    """Each metric over a whole split; NaN where it is not defined (a constant's correlation).

    `f1` is that of the second class, as GLUE's; `macro_f1` the mean over classes that occur. Of
    classes, a constant has a correlation of 0, as scikit-learn has it.

    Args:
        outputs_NC: logits, or numbers [N, 1].
        labels_N: class numbers, or numbers.
        metrics: names.
        center: mean and deviation of the labels: a deviation of `rmse` is given in their units.
    """
    if NUMBER_METRICS[0] in metrics:
        numbers_N, labels_N = outputs_NC[:, 0].double(), labels_N.double()
        constant = len(labels_N) < 2 or any(bool(x.std() == 0) for x in (numbers_N, labels_N))
        values = {
            "spearman": math.nan if constant else tm.spearman_corrcoef(numbers_N, labels_N),
            "pearson": math.nan if constant else tm.pearson_corrcoef(numbers_N, labels_N),
            "rmse": tm.mean_squared_error(numbers_N, labels_N, squared=False) * center[1],
        }
        return {name: float(values[name]) for name in metrics}
    guess_N, classes = outputs_NC.argmax(1), outputs_NC.shape[1]
    constant = any(len(x.unique()) == 1 for x in (guess_N, labels_N))
    of_classes: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: multiclass_accuracy(guess_N, labels_N, classes, average="micro"),
        "f1": lambda: binary_f1_score(guess_N, labels_N),
        "macro_f1": lambda: multiclass_f1_score(guess_N, labels_N, classes, average="macro"),
        "matthews": lambda: (
            0.0 if constant else multiclass_matthews_corrcoef(guess_N, labels_N, classes)
        ),
    }
    return {name: float(of_classes[name]()) for name in metrics}


def baseline(labels_train: Tensor, labels_N: Tensor, num_classes: int) -> dict[str, float]:
    """What needs no text: the training split's most frequent class, or its mean."""
    if not num_classes:
        error_N = labels_N.double() - labels_train.double().mean()
        return {"rmse": float(error_N.square().mean().sqrt())}
    majority = torch.bincount(labels_train, minlength=num_classes).argmax()
    return {"accuracy": float((labels_N == majority).double().mean())}
