"""Gradients of single examples as numbers: entries of each matrix, and how examples agree.

Shapes: B = 1 sequence, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.states.families import block_matrices
from headless.errors import HeadlessError
from headless.models.backbone import blocks

LossOf = Callable[[Tensor], Tensor]
Place = tuple[int, str]  # block and role
GAUSSIAN_TAIL = 6.334e-5  # P(|z| > 4)
Z = np.linspace(-12, 12, 193)  # edges of the histograms of standardised entries


def token_loss(model: Any, mask_token: int | None = None) -> LossOf:
    """Mean loss of a model with an LM head on a sequence, in nats per token.

    Args:
        model: `…ForCausalLM`, scored on each next token; or `…ForMaskedLM` with `mask_token`, on
            every seventh token, masked.
        mask_token: of a masked model.
    """

    def of(ids_BT: Tensor) -> Tensor:
        if mask_token is None:
            logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
            targets_BT = ids_BT[:, 1:]
        else:
            masked_T = torch.arange(ids_BT.shape[1], device=ids_BT.device) % 7 == 3
            logits_BTV = model(input_ids=ids_BT.masked_fill(masked_T, mask_token)).logits
            logits_BTV, targets_BT = logits_BTV[:, masked_T], ids_BT[:, masked_T]
        flat_NV = logits_BTV.flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(flat_NV, targets_BT.flatten())

    return of


@dataclass(frozen=True)
class Entries:
    """The distribution of a matrix' entries.

    Args:
        mean_over_std: should be near 0.
        std: of the entries.
        kurtosis: excess; 0 for a Gaussian.
        scaled_kurtosis: after each row and column was divided by its root mean square: what is
            not explained by some inputs and outputs having larger gradients.
        largest: max |z|.
        tail: P(|z| > 4) over a Gaussian's.
        piled: entries within 1 % of the largest |entry|: many where values were clipped.
        histogram: counts of z between `Z`.
    """

    mean_over_std: float
    std: float
    kurtosis: float
    scaled_kurtosis: float
    largest: float
    tail: float
    piled: int
    histogram: np.ndarray


def entries(matrix: Tensor) -> Entries:
    """Describe the entries of a matrix, in float64.

    Raises:
        ValueError: all entries are the same.
    """
    x = matrix.detach().double()
    mean, std = float(x.mean()), float(x.std(correction=0))
    if not std > 0:
        raise ValueError("all entries are the same")
    z = (x - mean) / std
    size = x.abs()
    row = x.square().mean(dim=1, keepdim=True).sqrt()
    column = (x / row.clamp(min=1e-300)).square().mean(dim=0, keepdim=True).sqrt()
    scaled = x / row.clamp(min=1e-300) / column.clamp(min=1e-300)
    return Entries(
        mean_over_std=mean / std,
        std=std,
        kurtosis=float(z.pow(4).mean()) - 3,
        scaled_kurtosis=_kurtosis(scaled),
        largest=float(z.abs().max()),
        tail=float((z.abs() > 4).double().mean()) / GAUSSIAN_TAIL,
        piled=int((size >= 0.99 * size.max()).sum()),
        histogram=np.histogram(z.cpu().numpy(), Z)[0],
    )


def _kurtosis(x: Tensor) -> float:
    x = x - x.mean()
    return float(x.pow(4).mean() / x.square().mean().square()) - 3


@contextmanager
def gradients_as_weights(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> Iterator[None]:
    """Inside this, parameters hold their gradients: what reads weights reads those.

    Parameters without a gradient hold zeros. Weights come back whatever happens.
    """
    saved = [p.data for p in parameters]
    try:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.data = torch.zeros_like(p) if gradient is None else gradient
        yield
    finally:
        for p, weight in zip(parameters, saved, strict=True):
            p.data = weight


def backward(
    inside: nn.Module, examples: Sequence[Tensor], loss_of: LossOf
) -> tuple[dict[Place, Entries], dict[Place, Entries], dict[Place, tuple[float, float]]]:
    """The first example's entries, those of the mean, and (mean of |g|², |mean g|²)."""
    parameters = [p for block in blocks(inside) for p in block.parameters()]
    device = parameters[0].device
    single: dict[Place, Entries] = {}
    sums: dict[Place, Tensor] = {}
    squares: dict[Place, float] = {}
    for number, ids_BT in enumerate(examples):
        with torch.enable_grad():
            loss = loss_of(ids_BT.to(device))
        if not bool(loss.isfinite()):
            raise HeadlessError(f"the loss of example {number} is not finite: its gradient is not")
        # Not backward(): no .grad of the caller's is touched, the head's neither.
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        with gradients_as_weights(parameters, found):
            for matrix in block_matrices(inside):
                place = (matrix.block, matrix.role)
                if number == 0:
                    single[place] = _described(matrix.weight, place)
                g = matrix.weight.float()
                squares[place] = squares.get(place, 0.0) + float(g.double().square().sum())
                if len(examples) > 1:
                    sums[place] = sums[place].add_(g) if place in sums else g
        del found
    mean = {place: _described(total / len(examples), place) for place, total in sums.items()}
    both = {
        place: (
            squares[place] / len(examples),
            float((total.double() / len(examples)).square().sum()),
        )
        for place, total in sums.items()
    }
    return single, mean, both


def _described(matrix: Tensor, place: Place) -> Entries:
    try:
        return entries(matrix)
    except ValueError:
        raise HeadlessError(
            f"{place[1]} of block {place[0]} has no gradient: the loss does not run through it"
        ) from None


def noise_scale(mean_square: float, square_mean: float, n: int) -> float:
    """tr Σ / |G|², both without bias from n examples; infinite where noise hides the mean."""
    noise = (mean_square - square_mean) * n / (n - 1)
    signal = square_mean - noise / n
    return noise / signal if signal > 0 else float("inf")
