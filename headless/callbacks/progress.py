"""How far a run is, in tokens, training seconds and FLOPs: the x-axes of every curve."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch._dynamo.callback import callback_handler

COUNTED = ("tokens", "flops", "seconds", "startup_seconds", "timed_tokens")  # in a checkpoint
WARMUP_STEPS = 2  # optimizer steps after a start or a resume that no clock counts


class PauseListener(Protocol):
    """What measures training alone hears when training stands still, by whatever cause."""

    def training_pauses(self) -> None: ...

    def training_goes_on(self) -> None: ...


class ProgressMonitor(Callback):
    """Counts what a run has consumed; always on, first among the callbacks.

    Tokens are real ones (`batch["num_tokens"]`), of all devices. Seconds are those of training:
    the clock stands still during validation, checkpoints, the work of monitors and torch.compile's,
    and over the first steps after a start or a resume, in which memory is taken and kernels are
    loaded. The seconds of compilation and of those steps are kept apart, as `startup_seconds`. All
    go on over a resume. The run's loggers put them beside every point they write:

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
        self.timed_tokens = 0  # of the steps that `seconds` were counted for
        self.warmup_steps = WARMUP_STEPS  # after a start or a resume: not timed
        self.listeners: list[PauseListener] = []
        self._seconds = 0.0
        self._startup_seconds = 0.0
        self._since: float | None = None
        self._compiling_since: float | None = None
        self._warm_at = 0
        self.is_warm = True  # whether the steps of now are timed
        self._cuda = False
        self._point: dict[str, float] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far; on a GPU it waits for the work that was given to it."""
        return self._seconds + (self._running() if self.is_warm else 0.0)

    @property
    def startup_seconds(self) -> float:
        """Seconds of compilation and of warm-up steps, over all starts of the run."""
        return self._startup_seconds + (0.0 if self.is_warm else self._running())

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
        """What is done inside is not training."""
        running = self._since is not None
        self._stop()
        try:
            yield
        finally:
            if running:
                self._start()

    def _running(self) -> float:
        if self._since is None:
            return 0.0
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - self._since

    def _bank(self) -> None:
        """Put what has run to where it belongs, and run on."""
        self._seconds, self._startup_seconds = self.seconds, self.startup_seconds
        if self._since is not None:
            self._since = time.perf_counter()

    def _start(self) -> None:
        if self._since is None:
            for listener in self.listeners:
                listener.training_goes_on()
            self._since = time.perf_counter()

    def _stop(self) -> None:
        if self._since is None:
            return
        self._bank()
        self._since = None
        for listener in self.listeners:
            listener.training_pauses()

    def _compilation_begins(self, *_: Any) -> None:
        """Whenever it comes: a batch of another size may ask for a second graph."""
        if self._since is not None:
            self._stop()
            self._compiling_since = time.perf_counter()

    def _compilation_ends(self, *_: Any) -> None:
        if self._compiling_since is not None:
            self._startup_seconds += time.perf_counter() - self._compiling_since
            self._compiling_since = None
            self._start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "progress"):
                logger.progress = self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._cuda = pl_module.device.type == "cuda"
        self.step = trainer.global_step
        self._warm_at = self.step + self.warmup_steps
        self.is_warm = self.warmup_steps == 0
        self._point = None
        for logger in trainer.loggers:
            if hasattr(logger, "begin"):
                logger.begin(self.tokens)
        self._ignore_compiler()
        callback_handler.register_start_callback(self._compilation_begins)
        callback_handler.register_end_callback(self._compilation_ends)
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Every device has a micro-batch of the same size.
        self._point = None
        self.step = trainer.global_step
        tokens = batch["num_tokens"] * trainer.world_size
        self.tokens += tokens
        self.flops += pl_module.training_flops(batch) * trainer.world_size  # type: ignore[operator]
        if self.is_warm:
            self.timed_tokens += tokens
        elif self.step >= self._warm_at:
            self._bank()
            self.is_warm = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._ignore_compiler()

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        self._stop()  # a summary that is written now is right
        self._ignore_compiler()

    def _ignore_compiler(self) -> None:
        if self._compilation_begins in callback_handler.start_callbacks:
            callback_handler.remove_start_callback(self._compilation_begins)
            callback_handler.remove_end_callback(self._compilation_ends)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COUNTED}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self.flops, self._seconds, self._startup_seconds, self.timed_tokens = (
            state_dict[name] for name in COUNTED
        )


def progress_of(trainer: Trainer) -> ProgressMonitor:
    """The progress of a run, whose trainer must have a ProgressMonitor."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ProgressMonitor):
            return callback
    raise RuntimeError("the trainer has no ProgressMonitor: add one as its first callback")


def log_point(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send metrics of a monitor's own cadence to every logger, as one point.

    Loggers that know the run's progress need no step.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            step = None if hasattr(logger, "begin") else trainer.global_step
            logger.log_metrics(dict(metrics), step=step)
