"""Peaks of a process that takes memory and gives it back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

import headless.callbacks.memory
from headless.callbacks.memory import GIB, HostMemory, MemoryMonitor
from headless.data.prepare import prepare
from headless.training.devices import keep_freed_memory

TAKEN = 0.25  # GiB
WORDS = 60_000  # of a vocabulary whose logits are larger than anything a headless step holds


def take() -> np.ndarray:
    """Memory that is really there: freed at once by whoever drops it."""
    return np.ones(int(TAKEN * GIB), dtype=np.uint8)


@pytest.fixture(autouse=True)
def kept() -> None:
    """As a run on a CPU has it: the C library keeps what is freed."""
    keep_freed_memory(torch.device("cpu"))


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


@pytest.fixture(scope="module")
def wide_dataset(dataset: Path, text_files: Path, tmp_path_factory) -> Path:
    """The usual text, with tens of thousands of words in the vocabulary that it never uses."""
    directory = tmp_path_factory.mktemp("wide")
    shutil.copytree(dataset / "tokenizer", directory / "tokenizer")
    file = directory / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"word{n}": len(vocabulary) + n for n in range(WORDS)}
    file.write_text(json.dumps(tokenizer))
    prepare(
        [str(text_files)],
        directory / "data",
        tokenizer=str(directory / "tokenizer"),
        validation_fraction=0.1,
    )
    return directory / "data"


def peaks_with_and_without_validation(arguments, train, wide_dataset, *more: str) -> list[dict]:
    """Summaries of the same training, validated and not."""
    found = []
    for name, limit in (("validated", "1"), ("alone", "0")):
        run = train(
            name,
            *("--data.path", str(wide_dataset), "--data.val_batch_size", "64"),
            *("--model.objective", "ContrastiveWeightTying", "--laboratory.enabled", "false"),
            *("--trainer.limit_val_batches", limit, "--samples.every_n_steps", "1000"),
            *("--trainer.val_check_interval", "3", "--trainer.max_steps", "6", *more),
        )
        found.append(run.directory.read_summary())
    return found


def test_the_peak_is_trainings_with_validation_on(arguments, train, wide_dataset) -> None:
    """A headless step never holds logits over the vocabulary; validation does, and says so."""
    validated, alone = peaks_with_and_without_validation(arguments, train, wide_dataset)
    logits = 64 * 16 * WORDS * 4 / GIB  # of one batch
    assert validated["peak_memory_gib"] == pytest.approx(alone["peak_memory_gib"], abs=0.5 * logits)
    assert validated["peak_validation_memory_gib"] > validated["peak_memory_gib"] + logits
    assert validated["memory_kind"] == "host"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_is_trainings_on_a_gpu(arguments, train, wide_dataset) -> None:
    gpu = ("--trainer.accelerator", "gpu", "--trainer.devices", "1", "--model.compile", "false")
    validated, alone = peaks_with_and_without_validation(arguments, train, wide_dataset, *gpu)
    logits = 64 * 16 * WORDS * 4 / GIB
    assert validated["peak_memory_gib"] == pytest.approx(alone["peak_memory_gib"], rel=0.02)
    assert validated["peak_validation_memory_gib"] > logits
    assert validated["memory_kind"] == "gpu"


class Device(Callback):
    """A GPU's allocator by hand, in GiB: what it holds now, and the most since the last reset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.peak = 1.0, 0.0
        for name, value in (
            ("max_memory_allocated", lambda device: self.peak * GIB),
            ("max_memory_reserved", lambda device: 2 * self.peak * GIB),
            ("reset_peak_memory_stats", self.reset),
        ):
            monkeypatch.setattr(torch.cuda, name, value)
        cuda = headless.callbacks.memory.Memory(torch.device("cuda"))
        monkeypatch.setattr(headless.callbacks.memory, "Memory", lambda device: cuda)

    def reset(self, device: torch.device) -> None:
        self.peak = self.held

    def take(self, gib: float) -> None:
        self.peak = max(self.peak, self.held + gib)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.take(5.0 if trainer.global_step == 4 else 2.0)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.take(40.0)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        self.take(20.0)


def test_every_pause_is_a_boundary_on_a_gpu(train, monkeypatch) -> None:
    """Validation after step 6, checkpoints after 5, 10 and 12, reports every third step."""
    run = train("run", callbacks=[Device(monkeypatch)])
    keys = ("peak_gib", "peak_reserved_gib", "peak_validation_gib")
    found = {
        p["progress/step"]: tuple(p[f"memory/{key}"] for key in keys)
        for p in run.with_key("memory/peak_gib")
    }
    assert found[3] == (3.0, 6.0, 1.0)
    assert found[6] == (6.0, 12.0, 21.0)
    assert found[9] == (3.0, 6.0, 41.0)
    monitor = run.callback(MemoryMonitor)
    assert (monitor.peak_gib, monitor.peak_validation_gib) == (6.0, 41.0)
    assert run.directory.read_summary()["memory_kind"] == "gpu"  # though it is on the CPU again


def test_what_the_allocator_keeps_is_nobodys() -> None:
    """Many small pieces: the C library keeps them for later, and the system counts them as held."""
    host = HostMemory()
    before = host.resident()
    pieces = [torch.ones(2**18) for _ in range(200)]
    held = host.resident() - before
    fence = torch.ones(8)  # above them: the end of the heap does not fall by itself
    del pieces
    host.reset()
    assert len(fence) == 8
    assert held > 0.15 * GIB
    assert host.peak() - before < 0.2 * held


def test_cadence_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every_n_steps"):
        MemoryMonitor(every_n_steps=0)
