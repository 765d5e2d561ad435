"""Which numeric precisions training is right in: decided here and nowhere else."""

from typing import Any

import torch

from headless.errors import HeadlessError

RIGHT = ("32-true", "bf16-mixed", "64-true")
ALIASES = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
REASONS = {
    "bf16-true": "an update below 1/256 of a weight is lost, so that gains of norms never move",
    "16-true": "its range is too small for gradients and for the optimizer's second moments",
    "16-mixed": "its gradients are scaled while they are measured and clipped",
}


def choose_precision(precision: Any, accelerator: str) -> str | None:
    """What `trainer.precision` means here; left out, it is bf16-mixed on a GPU that has bf16.

    Raises:
        HeadlessError: see `check_precision`.
    """
    if precision is not None:
        return check_precision(precision)
    if accelerator == "cpu" or not torch.cuda.is_available():
        return None
    return "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "32-true"


def check_precision(precision: Any) -> str:
    """Lightning's full name of a precision that training is right in.

    Raises:
        HeadlessError: it is not, with what to take.
    """
    name = ALIASES.get(str(precision), str(precision))
    if name in RIGHT:
        return name
    reason = f": {REASONS[name]}" if name in REASONS else ""
    raise HeadlessError(
        f"precision {name} is not supported{reason}; take bf16-mixed, or 32-true where the device "
        "has no bf16"
    )
