"""The progress bar: what it shows, and that it makes no step wait for the device."""

from types import SimpleNamespace
from typing import Any

from headless.callbacks.progress_bar import StepProgressBar
from headless.progress import Display


class Counted:
    """A value whose reading waits for a device."""

    def __init__(self, value: float) -> None:
        self.value, self.read = value, 0

    def __float__(self) -> float:
        self.read += 1
        return self.value


def trainer_at(loss: Counted) -> Any:
    return SimpleNamespace(
        callback_metrics={"train/loss": loss},
        progress_bar_metrics={"val/nll": 3.0},
        log_every_n_steps=4,
        global_step=0,
        current_epoch=0,
        max_steps=8,
        num_training_batches=100,
        max_epochs=1,
        default_root_dir="runs/a",
    )


def test_the_loss_is_read_where_it_is_logged(capsys) -> None:
    bar, loss = StepProgressBar(Display(True)), Counted(2.5)
    trainer = bar._trainer = trainer_at(loss)
    for step in (1, 2, 3, 4, 4, 5, 6, 7, 8, 8):
        trainer.global_step = step
        bar.on_train_batch_end(trainer, None, None, None, 0)
    assert loss.read == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a, epoch 0: 1 of 8 val/nll 3.000"
    assert lines[-1] == "a, epoch 0: 8 of 8 train/loss 2.500 val/nll 3.000"


def test_a_listener_gets_the_steps_and_nothing_is_printed(capsys) -> None:
    seen: list[Any] = []
    bar = StepProgressBar(Display(lambda *words: seen.append(words)))
    trainer = bar._trainer = trainer_at(Counted(2.5))
    trainer.global_step = 3
    bar.on_train_batch_end(trainer, None, None, None, 0)
    assert seen == [("a, epoch 0", 3, 8)]
    assert capsys.readouterr() == ("", "")
