"""The cadence of monitors, and how they look at a model in the middle of its training."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from headless.callbacks.progress import progress_of
from headless.models.sharding import gathered

PROBE_TOKENS = 8
EveryNSteps = int | Literal["log"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No dropout, so no random number, and no gradients; every submodule gets its own mode back.

    Where the weights are sharded, those outside the blocks are whole: every process must enter.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), gathered(module):
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def require_finite(module: Any) -> None:
    """Before anybody looks at the weights: settle them, and refuse where training has diverged.

    The losses of all steps, and what the weights of now give, which no loss has seen yet: every
    process must call, and each one raises.
    """
    module.require_finite()
    module.settle_rows()
    length = min(PROBE_TOKENS, module.sequence_length)
    ids_1T = torch.arange(length, device=module.device)[None] % module.vocab_size
    with evaluating(module), module.trainer.precision_plugin.forward_context():
        finite = module.forward(ids_1T).isfinite().all()
    if not finite:
        raise module.diverged()


def is_log_step(step: int, switch: float = math.inf) -> bool:
    """Whether a step is one of 1, 2, 3, 4, 6, 8, 12, 16, 24, …: two an octave. They begin anew at
    the `switch` to another objective, which is one itself."""
    if step >= switch:
        behind = step - int(switch)
        return behind == 0 or is_log_step(behind) or is_log_step(step)
    return step > 0 and step // (step & -step) in (1, 3)


def switch_step_of(module: Any) -> float:
    """After how many steps a module goes over to another objective; inf: never."""
    return float(getattr(module, "switch_step", math.inf))


class Cadence:
    """Tells once for each optimizer step whether it is time to report.

    Every so many steps, or at `is_log_step`. Under gradient accumulation several micro-batches end
    with the same step.
    """

    def __init__(self, every_n_steps: EveryNSteps) -> None:
        if every_n_steps != "log" and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.switch = math.inf
        self._last = -1

    def due(self, step: int) -> bool:
        """Whether `step` is one to report that was not reported yet."""
        every = self.every_n_steps
        wanted = (
            is_log_step(step, self.switch) if every == "log" else step > 0 and step % every == 0
        )
        if not wanted or step == self._last:
            return False
        self._last = step
        return True

    def begin(self, step: int, switch: float = math.inf) -> None:
        """A run begins after this step: it was reported before, if it was one to report."""
        self._last, self.switch = step, switch


class PeriodicMonitor(Callback):
    """Reports every so many optimizer steps, and what is left at the end of training.

    A subclass says what a report is; the training clock stands still while it is made.
    Logs nothing: that is the subclass's part.
    """

    looks_at_weights = False  # a report says nothing after training has diverged, and may die of it

    def __init__(self, every_n_steps: int) -> None:
        self.cadence = Cadence(every_n_steps)
        self._reported = -1

    def report(self, trainer: Trainer, pl_module: Any) -> None:
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cadence.begin(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.cadence.due(trainer.global_step):
            self.report_now(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._reported != trainer.global_step:
            self.report_now(trainer, pl_module)

    def report_now(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reported = trainer.global_step
        with progress_of(trainer).paused():
            if self.looks_at_weights:
                require_finite(pl_module)
            self.report(trainer, pl_module)
