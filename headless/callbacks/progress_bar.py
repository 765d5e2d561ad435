"""Training in the display that all commands have."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from headless.progress import Display


class StepProgressBar(ProgressBar):
    """Optimizer steps of the run, right after a resume and over epochs, with the last scores.

    Lightning's own counts batches of an epoch, which a run of so many steps does not end with.
    Logs nothing.
    """

    def __init__(self, display: Display) -> None:
        super().__init__()
        self.display = display
        self._read, self._loss = -1, ""

    def disable(self) -> None:
        self.display = Display(False)

    def enable(self) -> None:
        """It is as it was made."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps, batches = trainer.max_steps, self.total_train_batches
        done, total = (trainer.global_step, steps) if steps > 0 else (batch_idx + 1, batches)
        self._read_loss(trainer)
        if self.display.is_due(done, int(total)):
            name = f"{Path(trainer.default_root_dir).name}, epoch {trainer.current_epoch}"
            self.display.report(name, done, int(total), self.detail(trainer))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *index: int
    ) -> None:
        if self.display.is_due():
            total: Any = sum(trainer.num_val_batches)
            self.display.report("validation", index[0] + 1, int(total), self.detail(trainer))

    def _read_loss(self, trainer: Trainer) -> None:
        """The loss of the last step that was logged: reading it waits for the device."""
        step, loss = trainer.global_step, trainer.callback_metrics.get("train/loss")
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if loss is not None and step % every == 0 and step != self._read:
            self._read, self._loss = step, f"train/loss {float(loss):.3f}"

    def detail(self, trainer: Trainer) -> str:
        shown = trainer.progress_bar_metrics.items()
        values = [f"{name} {value:.3f}" for name, value in shown if isinstance(value, float)]
        return " ".join([self._loss, *values]).strip()
