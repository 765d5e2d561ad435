"""Tokens a second, counted and not derived."""

import re
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from headless.callbacks.periodic import Cadence
from headless.callbacks.progress import log_point, progress_of

# Dense peaks in FLOP/s, without sparsity, as the vendor's datasheets give them ("NVIDIA H100 Tensor
# Core GPU", "NVIDIA L40S", ...; the RTX cards: the Ada and Ampere GA102 architecture papers; the
# H20, of which NVIDIA has no public one: those that sell it):
# half precision with float32 accumulation (bf16; fp16 on V100 and T4, which have no bf16), TF32,
# and ordinary float32. A boost clock is in all of them. None: the device has no such units.
PEAK_FLOPS: dict[str, tuple[float, float | None, float]] = {
    "B200": (2250e12, 1125e12, 75e12),
    "GH200": (989.4e12, 494.7e12, 67e12),
    "H200": (989.4e12, 494.7e12, 67e12),
    "H200 NVL": (835.5e12, 417.5e12, 60e12),
    "H100": (989.4e12, 494.7e12, 67e12),
    "H100 NVL": (835.5e12, 417.5e12, 60e12),
    "H100 PCIE": (756e12, 378e12, 51e12),
    "H20": (148e12, 74e12, 44e12),
    "A100 SXM4": (312e12, 156e12, 19.5e12),
    "A100 PCIE": (312e12, 156e12, 19.5e12),
    "A30": (165e12, 82e12, 10.3e12),
    "A40": (149.7e12, 74.8e12, 37.4e12),
    "A10": (125e12, 62.5e12, 31.2e12),
    "L4": (121e12, 60e12, 30.3e12),
    "L40S": (362e12, 183e12, 91.6e12),
    "RTX A6000": (154.8e12, 77.4e12, 38.7e12),
    "RTX 4090": (165.2e12, 82.6e12, 82.6e12),
    "RTX 3090": (71e12, 35.6e12, 35.6e12),
    "V100 SXM2": (125e12, None, 15.7e12),
    "V100 PCIE": (112e12, None, 14e12),
    "T4": (65e12, None, 8.1e12),
}
# What a device's name holds besides its model: maker, memory.
NOT_THE_MODEL = re.compile(r"NVIDIA|TESLA|GEFORCE|HBM\w*|\d+GB")


def peak_flops(device_name: str, precision: str) -> float | None:
    """The dense peak of a device in FLOP/s; None where it is not known for sure.

    Only the exact model counts: an "RTX 4090 Laptop GPU", an "H200 NVL" or a MIG slice of an A100
    is another device than the one whose name it contains. `precision` is Lightning's name.
    """
    words = device_name.upper().replace("-", " ").split()
    model = " ".join(word for word in words if not NOT_THE_MODEL.fullmatch(word))
    if model not in PEAK_FLOPS:
        return None
    half, tf32, single = PEAK_FLOPS[model]
    if precision.startswith(("bf16", "16")):
        return half
    if precision.startswith("32"):
        allowed = tf32 is not None and torch.backends.cuda.matmul.fp32_precision == "tf32"
        return tf32 if allowed else single
    return None


class ThroughputMonitor(Callback):
    """How fast training runs, over the steps since the last report.

    Everything is a difference of what the progress monitor counted: real tokens, so gradient
    accumulation and batches of other sizes are right, and training seconds, so validation,
    checkpoints, monitors and compilation are left out.

    | key | meaning |
    | --- | --- |
    | `throughput/tokens_per_second` | of all devices together |
    | `throughput/step_ms` | milliseconds an optimizer step |
    | `throughput/flops_per_second` | of all devices together |
    | `throughput/mfu` | share of the devices' peak; only where the peak is known |
    | `throughput/startup_seconds` | so far, left out of `progress/seconds`: torch.compile and warm-up steps; whenever it has grown |

    Args:
        every_n_steps: optimizer steps between two reports.
        warmup_steps: optimizer steps after a start or a resume that are not timed: neither here
            nor in `progress/seconds`.
        peak_flops: dense peak of one device in FLOP/s, where it is not known or other than known.
    """  # noqa: E501 - a table's row is one line

    def __init__(
        self, every_n_steps: int = 20, warmup_steps: int = 2, peak_flops: float | None = None
    ) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
        self.cadence = Cadence(every_n_steps)
        if peak_flops is not None and not 0.0 < peak_flops < float("inf"):
            raise ValueError(f"peak_flops must be positive and finite, got {peak_flops}")
        self.warmup_steps = warmup_steps
        self.peak_flops = peak_flops
        self._startup = 0.0
        self._before: dict[str, float] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # One warm-up for both: the rates, and the seconds that they are made of.
        progress_of(trainer).warmup_steps = self.warmup_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress = progress_of(trainer)
        self._before = progress.point() if progress.is_warm else None
        self._startup = progress.startup_seconds
        self.cadence.begin(trainer.global_step)
        if self.peak_flops is None and pl_module.device.type == "cuda":
            name = torch.cuda.get_device_name(pl_module.device)
            self.peak_flops = peak_flops(name, str(trainer.precision))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step, progress = trainer.global_step, progress_of(trainer)
        before, values = self._before, {}
        if before is None:
            if not progress.is_warm:
                return
            self.cadence.begin(step)  # the window begins here: nothing to report of it yet
        elif not self.cadence.due(step):
            return
        self._before = now = progress.point()
        if before is not None:
            gone = {name.split("/")[1]: now[name] - before[name] for name in now}
            rate = gone["flops"] / gone["seconds"]
            values = {
                "throughput/tokens_per_second": gone["tokens"] / gone["seconds"],
                "throughput/step_ms": 1e3 * gone["seconds"] / gone["step"],
                "throughput/flops_per_second": rate,
            }
            if self.peak_flops is not None:
                values["throughput/mfu"] = rate / (self.peak_flops * trainer.world_size)
        if (startup := progress.startup_seconds) > self._startup:
            self._startup = values["throughput/startup_seconds"] = startup
        log_point(trainer, values)
