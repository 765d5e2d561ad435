"""Every point knows how far the run is, counted and not derived."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger
from torch._dynamo.callback import callback_handler

from headless.callbacks.periodic import Cadence
from headless.callbacks.progress import ProgressMonitor, progress_of
from headless.reports.compare import compare

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
    progress = run.callback(ProgressMonitor)
    assert progress.seconds == 20  # micro-batches, without those of two steps of warm-up
    assert progress.startup_seconds == 4
    for point in run.points:
        assert point["progress/seconds"] == max(0, point["progress/step"] - 2) * 2


def test_counts_go_on_after_a_resume(train, clock) -> None:
    whole = train("whole", "--trainer.max_steps", "9", callbacks=[clock])
    train("parts", "--trainer.max_steps", "4", callbacks=[clock])
    parts = train("parts", "--trainer.max_steps", "9", "--run.resume", "true", callbacks=[clock])
    counts = sorted(AXES - {"progress/seconds"})
    expected = [[p[k] for k in counts] for p in whole.with_key("train/loss")]
    assert [[p[k] for k in counts] for p in parts.with_key("train/loss")] == expected
    # Each start has two steps that are not timed.
    seconds = [p["progress/seconds"] for p in parts.with_key("train/loss")]
    assert seconds == [0, 0, 1, 2, 2, 2, 3, 4, 5]
    assert parts.callback(ProgressMonitor).state_dict() == {
        "tokens": 9 * TOKENS,
        "flops": whole.callback(ProgressMonitor).flops,
        "seconds": 5.0,
        "startup_seconds": 4.0,
        "timed_tokens": 5 * TOKENS,
    }


class LateCompilation(Callback):
    """In the middle of a step something is compiled, as when a batch asks for a second graph."""

    def __init__(self, clock: Callback, step: int) -> None:
        self.clock = clock
        self.step = step

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        def backend(graph, inputs):
            self.clock.now += 500.0
            return graph.forward

        if trainer.global_step == self.step:
            torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))


@pytest.mark.parametrize("step", [1, 7])
def test_compilation_is_not_training(train, clock, step) -> None:
    """Neither in the seconds nor in the rates, whenever it comes; what was left out is said."""
    run = train("run", callbacks=[clock, LateCompilation(clock, step)])
    trained = run.with_key("train/loss")
    assert [p["progress/seconds"] for p in trained] == [max(0, n - 2) for n in range(1, 13)]
    assert {p["throughput/step_ms"] for p in run.with_key("throughput/step_ms")} == {1000.0}
    said = [p["throughput/startup_seconds"] for p in run.with_key("throughput/startup_seconds")]
    assert said == ([502.0] if step == 1 else [2.0, 502.0])
    summary = run.directory.read_summary()
    assert (summary["seconds"], summary["startup_seconds"]) == (10.0, 502.0)
    assert summary["tokens_per_second"] == TOKENS  # of the timed steps, in the timed seconds


def test_a_run_that_is_all_warm_up_claims_no_speed(train, clock) -> None:
    runs = []
    for name, rate in (("one", "1e-3"), ("two", "1e-2")):
        more = ("--trainer.max_steps", "2", "--model.optimizer.lr", rate)
        runs.append(train(name, *more, callbacks=[clock]).directory)
        summary = runs[-1].read_summary()
        assert (summary["seconds"], summary["startup_seconds"]) == (0.0, 2.0)
        assert summary["tokens_per_second"] is None
    found = compare([run.path for run in runs], output=runs[0].path.parent / "report")
    assert [group.values("tokens_per_second") for group in found.groups] == [[None], [None]]


def test_trainings_do_not_listen_to_the_compiler_for_ever(train) -> None:
    before = len(callback_handler.start_callbacks)
    train("run", "--trainer.max_steps", "3")
    assert len(callback_handler.start_callbacks) == before


class Listening:
    """Hears of pauses."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def training_pauses(self) -> None:
        self.heard.append("pauses")

    def training_goes_on(self) -> None:
        self.heard.append("goes on")


def test_listeners_hear_of_every_pause_once() -> None:
    progress, listening = ProgressMonitor(), Listening()
    progress.listeners.append(listening)
    with progress.paused():
        pass  # nothing runs yet
    progress._start()
    with progress.paused(), progress.paused():
        progress._stop()
    progress._stop()
    progress._stop()
    assert listening.heard == ["goes on", "pauses", "goes on", "pauses"]


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
