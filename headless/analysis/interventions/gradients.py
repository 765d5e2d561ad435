"""Gradients of single examples, before anything averages or clips them.

Shapes: B = 1 sequence, T positions, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.interventions.ablation import token_loss
from headless.analysis.record import Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.capture import evaluating
from headless.analysis.states.families import block_matrices
from headless.errors import HeadlessError
from headless.models.backbone import blocks

EXAMPLES, LENGTH = 4, 256  # sequences, and tokens of each
GAUSSIAN_TAIL = 6.334e-5  # P(|z| > 4)
MEDIANS = ("kurtosis", "scaled_kurtosis", "tail", "piled", "batch_kurtosis", "noise_scale")
MEASURES = (
    Measure("mean_over_std", "mean over standard deviation"),
    Measure("kurtosis", "excess kurtosis"),
    Measure("piled", "entries within 1 % of the largest"),
)


@analysis(
    "gradients",
    title="Gradients of one example",
    about=(
        "One example's gradient, not averaged and not clipped. Excess kurtosis is 0 for a "
        "Gaussian and large where few entries are huge. A gradient is a sum of products of an "
        "input and an error, so that one large input dimension makes a large column: the scaled "
        "kurtosis is what is left when rows and columns have one size. The noise scale is the "
        "number of examples at which the mean gradient is as long as the noise of one (McCandlish "
        "et al. 2018)."
    ),
    needs={"text", "loss"},
    states="none",
    figures=(
        by_depth(
            "gradients-kurtosis",
            "Excess kurtosis by matrix and block; 0 for a Gaussian.",
            Panel("", ("kurtosis",), y="excess kurtosis", log="y"),
            wide=False,
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "Gradients of single examples have mean 0",
            values("mean_over_std").largest_size.formed(".3f") <= 0.05,
        ),
        Claim(
            CONJECTURE,
            "Gradients of single examples are highly Gaussian",
            values("kurtosis").median <= 1,
        ),
        Claim(
            CONJECTURE,
            "Outliers pile up at one value, as if they had been clipped",
            values("piled").median >= 10,
        ),
    ),
)
def gradients(lab: Session, *, nulls: bool) -> Finding:
    """The gradient of the first example in each matrix, and how examples agree."""
    loss_of = partial(token_loss, lab.subject.model, mask_token=lab.subject.mask_token)
    examples = [row_T[None, :LENGTH] for row_T in lab.sequences[:EXAMPLES]]
    numbers = measured(lab.subject.backbone, examples, loss_of)
    if not numbers:
        raise HeadlessError("the matrices of the model's family are not known")
    finding = Finding(series_of(numbers, MEASURES))
    median = {
        f"median_{name}": float(np.median(finding.values(name)))
        for name in MEDIANS
        if name in finding.series
    }
    off = float(np.abs(finding.values("mean_over_std")).max())
    whole = {**median, "largest_mean_over_std": off, "examples": float(len(examples))}
    answer = (
        f"Entries have mean 0 (at most {off:.3f} standard deviations off). Their excess kurtosis "
        f"is {median['median_kurtosis']:.1f} in the median matrix and "
        f"{finding.values('kurtosis').max():.0f} in the worst (0 for a Gaussian); with rows and "
        f"columns scaled to one size {median['median_scaled_kurtosis']:.1f} is left."
    )
    if len(examples) > 1:
        answer += (
            f" The mean of {len(examples)} examples has {median['median_batch_kurtosis']:.1f}; the "
            f"noise scale is {median['median_noise_scale']:.3g} examples."
        )
    series = series_of({Place(): whole} | numbers, MEASURES)
    return Finding(series).answered(answer)


LossOf = Callable[[Tensor], Tensor]
Numbers = dict[Place, dict[str, float]]


def measured(backbone: nn.Module, examples: Sequence[Tensor], loss_of: LossOf) -> Numbers:
    """Numbers of the first example's gradient in each matrix, and of the mean's.

    Weights and their `.grad` stay as they are.
    """
    wanted = {p: p.requires_grad for p in backbone.parameters()}
    try:
        for p in wanted:
            p.requires_grad_(True)
        with evaluating(backbone):
            return _backward(backbone, examples, loss_of)
    finally:
        for p, want in wanted.items():
            p.requires_grad_(want)


def _backward(inside: nn.Module, examples: Sequence[Tensor], loss_of: LossOf) -> Numbers:
    parameters = [p for block in blocks(inside) for p in block.parameters()]
    numbers: Numbers = {}
    sums: dict[Place, Tensor] = {}
    squares: dict[Place, float] = defaultdict(float)
    for index, ids_BT in enumerate(examples):
        with torch.enable_grad():
            loss = loss_of(ids_BT.to(parameters[0].device))
        if not bool(loss.isfinite()):
            raise HeadlessError(f"the loss of example {index} is not finite: its gradient is not")
        # Not backward(): no .grad of the caller's is touched, the head's neither.
        made = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradients: dict[Tensor, Tensor] = dict(zip(parameters, made, strict=True))
        for matrix in block_matrices(inside, gradients.__getitem__):
            place, gradient = Place(matrix.role, matrix.block), matrix.weight.float()
            if index == 0:
                numbers[place] = entries(gradient, place)
            squares[place] += float(gradient.double().square().sum())
            if len(examples) > 1:
                sums[place] = sums[place].add_(gradient) if place in sums else gradient
        del made, gradients  # before the next example makes as many
    count = len(examples)
    for place, total in sums.items():
        square_mean = float((total.double() / count).square().sum())
        numbers[place]["batch_kurtosis"] = entries(total / count, place)["kurtosis"]
        numbers[place]["noise_scale"] = noise_scale(squares[place] / count, square_mean, count)
    return numbers


def entries(matrix: Tensor, place: Place) -> dict[str, float]:
    """The distribution of a matrix' entries, in float64.

    `scaled_kurtosis` is what is left after each row and column was divided by its root mean
    square: not explained by some inputs and outputs having larger gradients. `tail` is P(|z| > 4)
    over a Gaussian's; many are `piled` within 1 % of the largest |entry| where values were clipped.
    """
    x = matrix.detach().double()
    mean, std = float(x.mean()), float(x.std(correction=0))
    if not std > 0:
        raise HeadlessError(
            f"{place.kind} of block {place.block} has no gradient: the loss does not run through it"
        )
    z, size = (x - mean) / std, x.abs()
    row = x.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-300)
    column = (x / row).square().mean(dim=0, keepdim=True).sqrt().clamp(min=1e-300)
    return {
        "mean_over_std": mean / std,
        "std": std,
        "kurtosis": float(z.pow(4).mean()) - 3,
        "scaled_kurtosis": _kurtosis(x / row / column),
        "largest": float(z.abs().max()),
        "tail": float((z.abs() > 4).double().mean()) / GAUSSIAN_TAIL,
        "piled": float((size >= 0.99 * size.max()).sum()),
    }


def _kurtosis(x: Tensor) -> float:
    x = x - x.mean()
    return float(x.pow(4).mean() / x.square().mean().square()) - 3


def noise_scale(mean_square: float, square_mean: float, n: int) -> float:
    """tr Σ / |G|², both without bias from n examples; infinite where noise hides the mean."""
    noise = (mean_square - square_mean) * n / (n - 1)
    signal = square_mean - noise / n
    return noise / signal if signal > 0 else float("inf")
