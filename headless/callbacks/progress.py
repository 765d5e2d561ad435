"""How far a run is, in tokens, training seconds and FLOPs: the x-axes of every curve."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class ProgressMonitor(Callback):
    """Counts what a run has consumed; always on, first among the callbacks.

    Tokens are real ones (`batch["num_tokens"]`), of all devices. Seconds are those of training:
    the clock stands still during validation, checkpoints and the work of monitors. All go on
    over a resume. The run's loggers put them beside every point they write:

    | key | meaning |
    | --- | --- |
    | `progress/step` | optimizer steps |
    | `progress/tokens` | tokens trained on |
    | `progress/seconds` | seconds of training |
    | `progress/flops` | forward and backward floating-point operations |
    | `progress/epoch` | passes over the data before this one; beside the module's own values |
    """

    def __init__(self) -> None:
        self.step = 0
        self.tokens = 0
        self.flops = 0.0
        self._seconds = 0.0
        self._since: float | None = None
        self._cuda = False
        self._point: dict[str, float] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far; on a GPU it waits for the work that was given to it."""
        if self._since is None:
            return self._seconds
        if self._cuda:
            torch.cuda.synchronize()
        return self._seconds + time.perf_counter() - self._since

    def point(self) -> dict[str, float]:
        """The four keys.

        The clock is read once between two micro-batches: whatever is logged there, by whichever
        logger, stands at the same second, and a GPU is waited for at most once.
        """
        if self._point is None:
            self._point = {
                "progress/step": self.step,
                "progress/tokens": self.tokens,
                "progress/seconds": self.seconds,
                "progress/flops": self.flops,
            }
        return dict(self._point)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside is not training time."""
        running = self._since is not None
        self._stop()
        try:
            yield
        finally:
            if running:
                self._start()

    def _start(self) -> None:
        self._since = time.perf_counter()

    def _stop(self) -> None:
        self._seconds, self._since = self.seconds, None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loggers that can tell how far the run is."""
        for logger in trainer.loggers:
            if hasattr(logger, "progress"):
                logger.progress = self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the loggers where the run begins, and start the clock."""
        self._cuda = pl_module.device.type == "cuda"
        self.step = trainer.global_step
        self._point = None
        for logger in trainer.loggers:
            if hasattr(logger, "begin"):
                logger.begin(self.tokens)
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a micro-batch; every device has one of the same size."""
        self._point = None
        self.step = trainer.global_step
        self.tokens += batch["num_tokens"] * trainer.world_size
        self.flops += pl_module.training_flops(batch) * trainer.world_size  # type: ignore[operator]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is not training."""
        self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on, unless this was `trainer.validate`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last second."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """So that a summary written now is right."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"tokens": self.tokens, "flops": self.flops, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.tokens = state_dict["tokens"]
        self.flops = state_dict["flops"]
        self._seconds = state_dict["seconds"]


def progress_of(trainer: Trainer) -> ProgressMonitor:
    """The progress of a run.

    Raises:
        RuntimeError: the trainer has no ProgressMonitor.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ProgressMonitor):
            return callback
    raise RuntimeError("the trainer has no ProgressMonitor: add one as its first callback")


def log_point(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send metrics of a monitor's own cadence to every logger, as one point.

    Loggers that know the run's progress need no step; see `point_of` in metrics_file.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            step = None if hasattr(logger, "begin") else trainer.global_step
            logger.log_metrics(dict(metrics), step=step)


class Cadence:
    """Tells once for each optimizer step whether it is time to report.

    Under gradient accumulation several micro-batches end with the same step.

    Args:
        every_n_steps: optimizer steps between two reports.

    Raises:
        ValueError: every_n_steps below 1.
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
