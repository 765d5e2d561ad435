"""What an optimizer step is the mean of: its rows, of all micro-batches and all processes.

A micro-batch's loss is the mean over its own rows. Automatic optimization divides each by
`accumulate_grad_batches` and averages over processes, which is the mean over the step's rows only
where every micro-batch has as many of them, and the step as many micro-batches as were asked for:
not at the end of an epoch, and not where a masked model's sequences have few ordinary tokens.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from headless.errors import DivergedError


class StepMeans:
    """Adds up the micro-batches of an optimizer step; no step waits for the device.

    A weight is a number of rows in units of the first micro-batch's places: 1 for a full one, so
    that nothing is rounded where all are full.
    """

    def __init__(self) -> None:
        self._places = 0
        self._weight = 0.0
        self._sums: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], rows: int, places: int) -> float:
        """Count a micro-batch; returns the weight that its loss has in the gradient of the step.

        Args:
            values: means over its rows: scalars, detached.
            rows: how many rows count.
            places: how many rows it has; the same in every process's first micro-batch.
        """
        self._places = self._places or places
        weight = rows / self._places
        self._weight += weight
        for name, value in values.items():
            value = value if weight == 1.0 else value * weight
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        return weight

    def close(self, accumulate: int) -> tuple[dict[str, Tensor], float | Tensor]:
        """End the step: the means over all rows, and the factor that makes the gradients theirs.

        `accumulate` is what automatic optimization has divided the losses by.
        """
        weight, sums, least = self._weight, self._sums, 1.0 / self._places
        self._weight, self._sums = 0.0, {}
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            weight = max(weight, least)  # a step without any row that counts: 0 and no gradient
            means = {n: value if weight == 1.0 else value / weight for n, value in sums.items()}
            return means, accumulate / weight
        totals = torch.stack([*sums.values()]).double()
        totals = torch.cat([totals, totals.new_full((1,), weight)])
        torch.distributed.all_reduce(totals)
        weights = totals[-1].clamp(min=least)
        means = dict(zip(sums, totals[:-1] / weights, strict=True))
        return means, accumulate * torch.distributed.get_world_size() / weights


class Divergence:
    """The first step whose loss or gradient was not a number, kept on the device."""

    def __init__(self) -> None:
        self._first: Tensor | None = None  # 0 for none

    def add(self, step: int, loss: Tensor, grad_norm: Tensor) -> None:
        """Look at a step. Loss and norm are those of all processes: each sees the same."""
        finite = torch.isfinite(loss) & torch.isfinite(grad_norm)
        now = torch.where(finite, 0, step)
        self._first = now if self._first is None else torch.where(self._first > 0, self._first, now)

    def check(self) -> None:
        """Refuse to go on after a step without a finite loss and gradient; waits for the device."""
        if self._first is not None and (step := int(self._first)):
            raise diverged(step)


def diverged(step: int) -> DivergedError:
    return DivergedError(
        f"the loss is not a finite number at step {step}: lower model.optimizer.lr, lengthen "
        "model.schedule.warmup_steps or clip with trainer.gradient_clip_val; the last good "
        "checkpoint is kept"
    )


def agree(buffers: Iterable[Tensor]) -> None:
    """Give every process what the first one has."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in buffers:
            torch.distributed.broadcast(buffer, 0)


def gradient_norm(trained: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together: a DTensor where they are sharded."""
    return nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])


def unsharded(tensor: Tensor) -> Tensor:
    """A tensor that may be a DTensor, as a plain one: every process must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def scale_gradients(trained: Iterable[Tensor], factor: float | Tensor) -> None:
    if isinstance(factor, float) and factor == 1.0:
        return
    for gradient in _local_gradients(trained):
        gradient.mul_(factor)


@torch.no_grad()
def clip(trained: Iterable[Tensor], largest: float, norm: Tensor | None) -> None:
    """Scale the gradients, whose norm is given, down to `largest`; or cut each number off at it."""
    if norm is not None:
        nn.utils.clip_grads_with_norm_(trained, largest, norm)
        return
    for gradient in _local_gradients(trained):
        gradient.clamp_(-largest, largest)


def _local_gradients(trained: Iterable[Tensor]) -> list[Tensor]:
    gradients: list[Any] = [p.grad for p in trained if p.grad is not None]
    return [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
