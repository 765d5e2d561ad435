"""Peak memory between two reports, and over the whole run."""

from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import LightningModule, Trainer

from headless.callbacks.periodic import PeriodicMonitor
from headless.callbacks.progress import log_point

GIB = 2**30
CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 resets the high-water mark


class HostMemory:
    """This process's resident memory and its peak since the last reset, in bytes.

    Linux keeps a high-water mark that a process may reset; where it may not, or elsewhere, the
    peak is that of the samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._sampled = 0
        self._marked = False  # whether the system's mark counts from the last reset

    def resident(self) -> int:
        """Resident bytes now."""
        now = self._process.memory_info().rss
        self._sampled = max(self._sampled, now)
        return now

    def peak(self) -> int:
        """The most since the last reset."""
        self.resident()
        if self._marked:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return max(self._sampled, int(line.split()[1]) * 1024)
        return self._sampled

    def reset(self) -> None:
        """Forget the peak."""
        self._sampled = 0
        try:
            CLEAR_REFS.write_text("5")
            self._marked = True
        except OSError:
            self._marked = False


class MemoryMonitor(PeriodicMonitor):
    """Peaks are reset at each report: they tell about the steps since the last one.

    | key | meaning |
    | --- | --- |
    | `memory/peak_gib` | GPU: most memory in tensors, GiB |
    | `memory/peak_reserved_gib` | GPU: most memory taken from the device, GiB |
    | `memory/host_gib` | resident memory of the process now, GiB |
    | `memory/peak_host_gib` | the most of it since the last report, GiB |

    Args:
        every_n_steps: optimizer steps between two reports.

    Attributes:
        peak_gib: the most over the whole run, resumes included: of the GPU, or of the host where
            there is none.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__(every_n_steps)
        self.peak_gib = 0.0
        self._host = HostMemory()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was used before is not training's."""
        super().on_train_start(trainer, pl_module)
        self._reset(pl_module)

    def report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the peaks and forget them."""
        values = {
            "memory/host_gib": self._host.resident() / GIB,
            "memory/peak_host_gib": self._host.peak() / GIB,
        }
        peak = values["memory/peak_host_gib"]
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device) / GIB
            values["memory/peak_gib"] = peak
            reserved = torch.cuda.max_memory_reserved(pl_module.device)
            values["memory/peak_reserved_gib"] = reserved / GIB
        self.peak_gib = max(self.peak_gib, peak)
        log_point(trainer, values)
        self._reset(pl_module)

    def _reset(self, pl_module: LightningModule) -> None:
        self._host.reset()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"peak_gib": self.peak_gib}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The peak of the run so far."""
        self.peak_gib = state_dict["peak_gib"]
