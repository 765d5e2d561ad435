"""Tokens a second, counted and not derived."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from headless.callbacks.progress import Cadence, log_point, progress_of

# Dense matrix peaks without sparsity, from the vendors' datasheets: bf16 (fp16 on V100) and, for
# training in float32, the rate of ordinary float32 units. The first name contained in the
# device's name counts, so special names stand before general ones. Unknown devices have no MFU.
PEAK_FLOPS: list[tuple[str, float, float]] = [
    ("H200", 989e12, 67e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100 NVL", 835e12, 60e12),
    ("H100", 989e12, 67e12),
    ("GH200", 989e12, 67e12),
    ("B200", 2250e12, 75e12),
    ("A100", 312e12, 19.5e12),
    ("A30", 165e12, 10.3e12),
    ("A10G", 70e12, 35e12),
    ("A40", 149.7e12, 37.4e12),
    ("L40S", 362e12, 91.6e12),
    ("L4", 121e12, 30.3e12),
    ("RTX 4090", 165.2e12, 82.6e12),
    ("RTX 3090", 71e12, 35.6e12),
    ("V100", 125e12, 15.7e12),
    ("T4", 65e12, 8.1e12),
]


def peak_flops(device_name: str, precision: str) -> float | None:
    """The dense peak of a device in FLOP/s; None where it is not known for sure.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        precision: Lightning's name of the precision: "bf16-mixed", "32-true", ...
    """
    for name, low, single in PEAK_FLOPS:
        if f" {name} " in f" {device_name.replace('-', ' ')} ":
            if precision.startswith(("bf16", "16")):
                return low
            tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
            return None if tf32 else single
    return None


class ThroughputMonitor(Callback):
    """How fast training runs, over the steps since the last report.

    Everything is a difference of what the progress monitor counted: real tokens, so gradient
    accumulation and batches of other sizes are right, and training seconds, so validation,
    checkpoints and monitors are left out.

    | key | meaning |
    | --- | --- |
    | `throughput/tokens_per_second` | of all devices together |
    | `throughput/step_ms` | milliseconds an optimizer step |
    | `throughput/flops_per_second` | of all devices together |
    | `throughput/mfu` | share of the devices' peak; only where the peak is known |

    Args:
        every_n_steps: optimizer steps between two reports.
        warmup_steps: steps after a start or a resume that no report covers.
        peak_flops: dense peak of one device in FLOP/s, where it is not known or other than known.
    """

    def __init__(
        self, every_n_steps: int = 20, warmup_steps: int = 2, peak_flops: float | None = None
    ) -> None:
        self.cadence = Cadence(every_n_steps)
        self.warmup_steps = warmup_steps
        self.peak_flops = peak_flops
        self._first = 0
        self._before: dict[str, float] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing to compare with yet."""
        self._before = None
        self._first = trainer.global_step + self.warmup_steps
        self.cadence.begin(trainer.global_step)
        if self.peak_flops is None and pl_module.device.type == "cuda":
            name = torch.cuda.get_device_name(pl_module.device)
            self.peak_flops = peak_flops(name, str(trainer.precision))
        if self.warmup_steps == 0:
            self._before = progress_of(trainer).point()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report when it is time."""
        step = trainer.global_step
        if self._before is None:
            if step >= self._first:
                self._before = progress_of(trainer).point()
            return
        if self.cadence.due(step):
            now = progress_of(trainer).point()
            log_point(trainer, self._rates(trainer, now))
            self._before = now

    def _rates(self, trainer: Trainer, now: dict[str, float]) -> dict[str, float]:
        assert self._before is not None
        gone = {name.split("/")[1]: now[name] - self._before[name] for name in now}
        rates = {
            "throughput/tokens_per_second": gone["tokens"] / gone["seconds"],
            "throughput/step_ms": 1e3 * gone["seconds"] / gone["step"],
            "throughput/flops_per_second": gone["flops"] / gone["seconds"],
        }
        if self.peak_flops is not None:
            peak = self.peak_flops * trainer.world_size
            rates["throughput/mfu"] = rates["throughput/flops_per_second"] / peak
        return rates
