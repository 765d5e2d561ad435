"""Peaks of a process that takes memory and gives it back."""

import numpy as np
import pytest
from lightning.pytorch import Callback

import headless.callbacks.memory
from headless.callbacks.memory import GIB, HostMemory, MemoryMonitor

TAKEN = 0.25  # GiB


def take() -> np.ndarray:
    """Memory that is really there: freed at once by whoever drops it."""
    return np.ones(int(TAKEN * GIB), dtype=np.uint8)


class Glutton(Callback):
    """Takes memory in the middle of one step and gives it back."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == 4:  # of the fifth step, within the second window
            take()


def test_peak_is_of_the_time_since_the_reset() -> None:
    host = HostMemory()
    host.reset()
    before = host.resident()
    take()
    assert host.peak() - before > 0.9 * TAKEN * GIB
    assert host.resident() - before < 0.5 * TAKEN * GIB
    host.reset()
    assert host.peak() - before < 0.5 * TAKEN * GIB


def test_where_the_mark_cannot_be_reset_samples_count(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(headless.callbacks.memory, "CLEAR_REFS", tmp_path / "none" / "such")
    host = HostMemory()
    host.reset()
    before = host.resident()
    kept = take()
    assert host.resident() - before > 0.9 * TAKEN * GIB
    del kept
    assert host.peak() - before > 0.9 * TAKEN * GIB
    host.reset()
    take()  # unseen: nobody looked meanwhile
    assert host.peak() - before < 0.5 * TAKEN * GIB


def test_every_window_has_its_own_peak(train) -> None:
    run = train("run", callbacks=[Glutton()])
    points = run.with_key("memory/peak_host_gib")
    assert [p["progress/step"] for p in points] == [3, 6, 9, 12]
    peaks = [p["memory/peak_host_gib"] for p in points]
    assert all(p["memory/host_gib"] <= p["memory/peak_host_gib"] + 1e-3 for p in points)
    assert peaks[1] - points[1]["memory/host_gib"] > 0.9 * TAKEN
    assert peaks[1] - max(peaks[2:]) > 0.5 * TAKEN
    assert run.callback(MemoryMonitor).peak_gib == max(peaks)
    assert not run.with_key("memory/peak_gib")  # that of a GPU


def test_the_peak_of_the_run_survives_a_resume(train) -> None:
    first = train("run", "--trainer.max_steps", "7", callbacks=[Glutton()])
    peak = first.callback(MemoryMonitor).peak_gib
    second = train("run", "--run.resume", "true")
    assert second.callback(MemoryMonitor).peak_gib == peak
    assert max(p["memory/peak_host_gib"] for p in second.with_key("memory/host_gib")) == peak


def test_a_report_is_not_repeated(train) -> None:
    """A run that is over has nothing to add when it is resumed."""
    train("run", "--trainer.max_steps", "7")
    run = train("run", "--trainer.max_steps", "7", "--run.resume", "true")
    assert [p["progress/step"] for p in run.with_key("memory/host_gib")] == [3, 6, 7]


def test_cadence_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every_n_steps"):
        MemoryMonitor(every_n_steps=0)
