"""Lightning's rich progress bar over optimizer steps, with what matters beside it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class StepProgressBar(RichProgressBar):
    """The bar of Lightning without the version number and with the epoch only where it is known.

    Logs nothing.
    """

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands to the right of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{Path(self.trainer.default_root_dir).name}, epoch {current_epoch}"
