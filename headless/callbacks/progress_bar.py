"""Lightning's rich progress bar over optimizer steps, with what matters beside it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class StepProgressBar(RichProgressBar):
    """Lightning's bar over all steps of a run: right after a resume, and the same over epochs.

    Lightning's own counts batches of an epoch, which a run of so many steps does not end with.
    Logs nothing.
    """

    _read = -1
    _loss: float | None = None

    @property
    def total_train_batches(self) -> int | float:
        """Optimizer steps of the run where they are limited, else batches of the epoch."""
        steps = self.trainer.max_steps
        return steps if steps > 0 else super().total_train_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar to the last optimizer step."""
        done = trainer.global_step - 1 if trainer.max_steps > 0 else batch_idx
        super().on_train_batch_end(trainer, pl_module, outputs, batch, done)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands to the right of the bar: the loss of the last step that was logged."""
        metrics = super().get_metrics(trainer, pl_module)
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and step % every == 0 and step != self._read:
            self._read, self._loss = step, float(loss)  # waits for the device: not at every step
        shown = {} if self._loss is None else {"train/loss": self._loss}
        return shown | {name: value for name, value in metrics.items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{Path(self.trainer.default_root_dir).name}, epoch {current_epoch}"
