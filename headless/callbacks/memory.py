"""Peak memory of training between two reports and over the whole run; that of its pauses apart."""

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import LightningModule, Trainer

from headless.callbacks.periodic import PeriodicMonitor
from headless.callbacks.progress import log_point, progress_of

GIB = 2**30
CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 resets the high-water mark


class HostMemory:
    """This process's resident memory and its peak since the last reset, in bytes.

    What was freed and the C library keeps for later is given back before it is looked at, and
    before the mark is reset: it is nobody's.
    Linux keeps a high-water mark that a process may reset; where it may not, or elsewhere, the
    peak is that of the samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._sampled = 0
        self._marked = False  # whether the system's mark counts from the last reset

    def resident(self) -> int:
        trim()
        now = self._process.memory_info().rss
        self._sampled = max(self._sampled, now)
        return now

    def peak(self) -> int:
        self.resident()
        if self._marked:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return max(self._sampled, int(line.split()[1]) * 1024)
        return self._sampled

    def reset(self) -> None:
        trim()
        self._sampled = 0
        try:
            CLEAR_REFS.write_text("5")
            self._marked = True
        except OSError:
            self._marked = False


class Memory:
    """What a process holds on its device and on the host, and the peaks since the last reset."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self.kind = "host" if self._device is None else "gpu"
        self._host = HostMemory()

    def peaks(self) -> dict[str, float]:
        """In GiB: `host`, and on a GPU `device` (tensors) and `reserved` (taken from it)."""
        peaks = {"host": self._host.peak()}
        if self._device is not None:
            peaks["device"] = torch.cuda.max_memory_allocated(self._device)
            peaks["reserved"] = torch.cuda.max_memory_reserved(self._device)
        return {name: peak / GIB for name, peak in peaks.items()}

    def resident(self) -> float:
        return self._host.resident() / GIB

    def reset(self) -> None:
        self._host.reset()
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)


def trim() -> None:
    """Give the system what the C library keeps of memory that is free."""
    with suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


class MemoryMonitor(PeriodicMonitor):
    """Training's peaks since the last report, and those of its pauses: validation and monitors.

    The peaks are read and forgotten wherever the training clock stops or goes on, so that neither
    holds what the other took; torch.compile's work is a pause, too. On a host they are of the whole
    process: the interpreter, its libraries and whatever a monitor keeps (the laboratory's copy of
    the first weights) are in both.

    | key | meaning |
    | --- | --- |
    | `memory/peak_gib` | GPU: most memory in tensors while training, GiB |
    | `memory/peak_reserved_gib` | GPU: most memory taken from the device while training, GiB; what its pauses left in torch's cache is in it |
    | `memory/peak_validation_gib` | GPU: most memory in tensors in its pauses: validation, monitors, GiB |
    | `memory/host_gib` | resident memory of the process now, GiB |
    | `memory/peak_host_gib` | the most of it while training, GiB |
    | `memory/peak_validation_host_gib` | the most of it in its pauses: validation, monitors, GiB |

    Args:
        every_n_steps: optimizer steps between two reports.
    """  # noqa: E501 - a table's row is one line

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__(every_n_steps)
        # Over the whole run, resumes included: of the GPU, or of the host where there is none.
        self.peak_gib = self.peak_validation_gib = 0.0
        self._memory: Memory | None = None
        self._training: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    @property
    def kind(self) -> str | None:
        """Where the model's own peaks are: `gpu` or `host`; None before training."""
        return None if self._memory is None else self._memory.kind

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self not in (listeners := progress_of(trainer).listeners):
            listeners.append(self)
        self._memory, self._training, self._pauses = Memory(pl_module.device), {}, {}
        self._memory.reset()

    def training_pauses(self) -> None:
        if self._memory is not None:
            self.peak_gib = max(self.peak_gib, self._fold(self._training))

    def training_goes_on(self) -> None:
        if self._memory is not None:
            self._fold_pause()

    def _fold_pause(self) -> None:
        self.peak_validation_gib = max(self.peak_validation_gib, self._fold(self._pauses))

    def _fold(self, into: dict[str, float]) -> float:
        """Add what was used since the last reset to a window's peaks; returns the model's own."""
        assert self._memory is not None
        peaks = self._memory.peaks()
        self._memory.reset()
        into |= {name: max(into.get(name, 0.0), value) for name, value in peaks.items()}
        return peaks.get("device", peaks["host"])

    def report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the peaks and forget them; training stands still meanwhile."""
        assert self._memory is not None
        self._fold_pause()
        values: dict[str, float | None] = {"memory/host_gib": self._memory.resident()}
        for kind, window in (("peak", self._training), ("peak_validation", self._pauses)):
            values[f"memory/{kind}_host_gib"] = window.get("host")
            values[f"memory/{kind}_gib"] = window.get("device")
        values["memory/peak_reserved_gib"] = self._training.get("reserved")
        log_point(trainer, {key: value for key, value in values.items() if value is not None})
        self._training, self._pauses = {}, {}

    def state_dict(self) -> dict[str, Any]:
        return {"peak_gib": self.peak_gib, "peak_validation_gib": self.peak_validation_gib}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.peak_gib = state_dict["peak_gib"]
        self.peak_validation_gib = state_dict["peak_validation_gib"]
