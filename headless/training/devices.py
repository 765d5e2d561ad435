"""Which device a computation is made on."""

from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from headless.errors import HeadlessError


def choose_accelerator(asked: Any) -> Any:
    """What `accelerator` means here: as Lightning has it, but never Apple's GPU.

    That one has no float64, in which scores, measures of geometry and weights of candidates are
    summed: "auto" is the CPU there.

    Raises:
        HeadlessError: Apple's GPU was asked for.
    """
    if not MPSAccelerator.is_available():
        named = asked
    elif asked == "auto":
        return "cuda" if CUDAAccelerator.is_available() else "cpu"
    else:
        named = "mps" if asked == "gpu" else asked  # as Lightning takes it on such a machine
    if named == "mps" or isinstance(named, MPSAccelerator):
        raise HeadlessError(f"accelerator {asked}: {NO_FLOAT64}")
    return asked


def choose_device(asked: str) -> torch.device:
    """What `--device` means: "auto" is a CUDA GPU where there is one, else the CPU.

    Raises:
        HeadlessError: no device of that name, or Apple's GPU.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise HeadlessError(f"the device {asked!r} cannot be used: {reason}") from error
    if device.type == "mps":
        raise HeadlessError(f"the device {asked!r} cannot be used: {NO_FLOAT64}")
    return device


NO_FLOAT64 = "Apple's GPU (MPS) has no float64, in which scores are summed: take cpu"
