"""On what devices, in which precision and how spread training is right: decided here alone."""

import ctypes
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import FSDPStrategy

from headless.errors import HeadlessError
from headless.training.compat import ShardedStrategy

NO_FLOAT64 = "Apple's GPU (MPS) has no float64, in which scores are summed: take cpu"
PRECISIONS = ("32-true", "bf16-mixed", "64-true")
ALIASES = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
REASONS = {
    "bf16-true": "an update below 1/256 of a weight is lost, so that gains of norms never move",
    "16-true": "its range is too small for gradients and for the optimizer's second moments",
    "16-mixed": "its gradients are scaled while they are measured and clipped",
}


def choose_accelerator(accelerator: Any) -> Any:
    """Lightning's meaning of `accelerator`, but never Apple's GPU: "auto" is the CPU there.

    It has no float64, in which scores, measures of geometry and weights of candidates are summed.
    """
    on_mac = MPSAccelerator.is_available()
    if on_mac and accelerator == "auto":
        return "cuda" if CUDAAccelerator.is_available() else "cpu"
    is_mps = accelerator == "mps" or isinstance(accelerator, MPSAccelerator)
    if is_mps or (on_mac and accelerator == "gpu"):
        raise HeadlessError(f"accelerator {accelerator}: {NO_FLOAT64}")
    return accelerator


def choose_device(name: str) -> torch.device:
    """What `--device` means: "auto" is a CUDA GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise HeadlessError(f"the device {name!r} cannot be used: {reason}") from error
    if device.type == "mps":
        raise HeadlessError(f"the device {name!r} cannot be used: {NO_FLOAT64}")
    return device


def keep_freed_memory(device: torch.device) -> None:
    """Where training is on the CPU: let glibc keep what tensors free for the next ones.

    Once and for the process.

    It maps each block above 32 MiB anew and gives it back when it is freed, so that the system
    clears its pages again at every step: at 4,096 tokens and as many in the vocabulary a softmax's
    step took 1.6 times as long, a headless one's 1.3 (benchmarks/allocator.json). Another
    allocator, or settings of the user's own (MALLOC_*_, GLIBC_TUNABLES), decide for themselves.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def choose_precision(precision: Any, accelerator: str) -> str | None:
    """What `trainer.precision` means here; left out, it is bf16-mixed on a GPU that has bf16."""
    if precision is not None:
        return check_precision(precision)
    if accelerator == "cpu" or not torch.cuda.is_available():
        return None
    return "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "32-true"


def can_compile() -> bool:
    """Whether Triton can build what it loads kernels with: by a C compiler, of Python's headers."""
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # Debian's own
    header = Path(sysconfig.get_paths(scheme)["include"], "Python.h")
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return header.is_file() and any(shutil.which(compiler) for compiler in compilers)


def check_precision(precision: Any) -> str:
    """Lightning's full name of a precision, refused where training is not right in it."""
    name = ALIASES.get(str(precision), str(precision))
    if name in PRECISIONS:
        return name
    reason = f": {REASONS[name]}" if name in REASONS else ""
    raise HeadlessError(
        f"precision {name} is not supported{reason}; take bf16-mixed, or 32-true where the device "
        "has no bf16"
    )


def choose_strategy(strategy: Any) -> Any:
    """What `trainer.strategy` means here: "fsdp" is ours, everything else Lightning's.

    Its own FSDPStrategy is refused: the norm of its gradients is not ours to know.
    """
    if strategy == "fsdp":
        return ShardedStrategy()
    if isinstance(strategy, FSDPStrategy) or strategy == "fsdp_cpu_offload":
        raise HeadlessError(
            "Lightning's FSDPStrategy (FSDP1) is not supported: choose trainer.strategy fsdp, "
            "which is FSDP2 here"
        )
    return strategy


def cluster_plugins(plugins: Sequence[Any] = ()) -> list[Any]:
    """Under SLURM: its environment without Lightning's handler of the requeue signal.

    None where the user's own `plugins` hold an environment.

    The handler saves a checkpoint from wherever each rank happens to be, in the middle of a step,
    and the ranks' collectives then meet each other's. `last.ckpt` is whole at any moment: the batch
    script requeues (docs/scaling.md), and the run goes on from there.
    """
    if any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        return []
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
