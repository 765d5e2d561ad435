"""Every point knows how far the run is, counted and not derived."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers.logger import Logger

from headless.callbacks.progress import Cadence, ProgressMonitor, progress_of

AXES = {"progress/step", "progress/tokens", "progress/seconds", "progress/flops"}
TOKENS = 4 * 16  # a micro-batch


class Listener(Logger):
    """Counts the calls in which Lightning hands over its values."""

    name = "listener"
    version = ""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[set[str]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.calls.append(set(metrics))

    def log_hyperparams(self, *args, **kwargs) -> None: ...


def test_progress_is_in_the_same_point_as_every_value(train) -> None:
    listener = Listener()
    run = train(
        "run",
        *("--trainer.accumulate_grad_batches", "2"),
        change=lambda cli: cli.trainer.loggers.append(listener),
    )
    # One line for each call: nothing was logged apart.
    assert [call - {"epoch"} for call in listener.calls] == [
        {k for k in point if not k.startswith("progress/")} for point in run.points
    ]
    for point in run.points:
        assert AXES <= set(point)
    trained, validated = run.with_key("train/loss"), run.with_key("val/nll")
    assert [p["progress/step"] for p in trained] == list(range(1, 13))
    assert [p["progress/step"] for p in validated] == [3, 6, 9, 12]  # Lightning counts batches
    for point in trained + validated:
        assert "optim/lr" in point or "val/loss" in point
        assert point["progress/tokens"] == point["progress/step"] * 2 * TOKENS


def test_only_training_takes_time(train, clock) -> None:
    """Validation, sanity check, checkpoints and monitors take a thousand seconds each here."""
    run = train(
        "run",
        *("--trainer.num_sanity_val_steps", "1", "--trainer.accumulate_grad_batches", "2"),
        *("--trainer.val_check_interval", "14"),  # after step 7, with nothing else
        callbacks=[clock],
    )
    assert clock.now > 10_000
    assert run.callback(ProgressMonitor).seconds == 24  # micro-batches
    for point in run.points:
        assert point["progress/seconds"] == point["progress/step"] * 2


def test_counts_go_on_after_a_resume(train, clock) -> None:
    whole = train("whole", "--trainer.max_steps", "9", callbacks=[clock])
    train("parts", "--trainer.max_steps", "4", callbacks=[clock])
    parts = train("parts", "--trainer.max_steps", "9", "--run.resume", "true", callbacks=[clock])
    expected = [[p[k] for k in sorted(AXES)] for p in whole.with_key("train/loss")]
    assert [[p[k] for k in sorted(AXES)] for p in parts.with_key("train/loss")] == expected
    assert parts.callback(ProgressMonitor).state_dict() == {
        "tokens": 9 * TOKENS,
        "flops": whole.callback(ProgressMonitor).flops,
        "seconds": 9.0,
    }


def test_tokens_and_flops_of_all_devices() -> None:
    progress = ProgressMonitor()
    trainer = SimpleNamespace(global_step=1, world_size=4)
    module = SimpleNamespace(training_flops=lambda batch: 10.0 * batch["num_tokens"])
    for num_tokens in (7, 5):
        progress.on_train_batch_end(trainer, module, None, {"num_tokens": num_tokens}, 0)
    assert (progress.tokens, progress.flops) == (48, 480.0)


def test_the_clock_is_read_once_between_two_batches() -> None:
    progress = ProgressMonitor()
    progress._start()
    assert progress.point() == progress.point()


def test_pauses_may_lie_inside_one_another(clock) -> None:
    progress = ProgressMonitor()
    progress._start()
    with progress.paused():
        with progress.paused():
            clock.now += 5
        clock.now += 5
    clock.now += 1
    assert progress.seconds == 1
    progress._stop()
    with progress.paused():
        clock.now += 5
    clock.now += 5
    assert progress.seconds == 1


def test_a_trainer_without_progress() -> None:
    with pytest.raises(RuntimeError, match="ProgressMonitor"):
        progress_of(SimpleNamespace(callbacks=[]))


def test_cadence_is_due_once_a_step() -> None:
    cadence = Cadence(2)
    steps = [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert [s for s in steps if cadence.due(s)] == [2, 4]
    cadence.begin(6)
    assert not cadence.due(6)
    with pytest.raises(ValueError, match="every_n_steps"):
        Cadence(0)
