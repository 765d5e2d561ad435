"""The cadence of monitors, and what those with work of their own share."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from headless.callbacks.evaluating import require_finite
from headless.callbacks.progress import progress_of


class Cadence:
    """Tells once for each optimizer step whether it is time to report.

    Under gradient accumulation several micro-batches end with the same step.
    """

    def __init__(self, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._last = -1

    def due(self, step: int) -> bool:
        """Whether `step` is a multiple that was not reported yet."""
        if step == 0 or step % self.every_n_steps or step == self._last:
            return False
        self._last = step
        return True

    def begin(self, step: int) -> None:
        """A run begins after this step: it was reported before, if it was one to report."""
        self._last = step


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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
