"""The progress bar: what it shows, and that it makes no step wait for the device."""

from types import SimpleNamespace
from typing import Any

from headless.callbacks.progress_bar import StepProgressBar


class Counted:
    """A value whose reading waits for a device."""

    def __init__(self, value: float) -> None:
        self.value, self.read = value, 0

    def __float__(self) -> float:
        self.read += 1
        return self.value


def test_the_loss_is_read_where_it_is_logged() -> None:
    bar = StepProgressBar()
    loss = Counted(2.5)
    trainer: Any = SimpleNamespace(
        callback_metrics={},
        progress_bar_metrics={"val/nll": 3.0},
        loggers=[],
        log_every_n_steps=4,
        global_step=0,
    )
    assert bar.get_metrics(trainer, None) == {"val/nll": 3.0}
    trainer.callback_metrics = {"train/loss": loss}
    for step in (1, 2, 3, 4, 4, 5, 6, 7, 8, 8):
        trainer.global_step = step
        shown = bar.get_metrics(trainer, None)
    assert shown == {"train/loss": 2.5, "val/nll": 3.0}
    assert loss.read == 2
