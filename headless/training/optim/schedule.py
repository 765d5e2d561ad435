"""Learning-rate schedules as functions of the step."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from headless.training.optim.settings import require

ScheduleName = Literal["cosine", "linear", "wsd", "constant"]


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over optimizer steps, as a share of the peak.

    Args:
        name: after the warm-up, "cosine" or "linear" fall to the floor at the last step; "wsd"
            (warm-up, stable, decay: Hu et al. 2024) stays and falls linearly at the end;
            "constant" stays.
        warmup_steps: steps of the linear warm-up.
        floor: the share of the peak that is left at the last step.
        decay_fraction: "wsd" only: the share of all steps, counted from the last one, in which the
            rate falls; tuned recipes of 2026 take 0.4 to 0.6.
    """

    name: ScheduleName = "cosine"
    warmup_steps: int = 0
    floor: float = 0.1
    decay_fraction: float = 0.2

    def __post_init__(self) -> None:
        known = get_args(ScheduleName)
        require("schedule.name", self.name in known, f"be one of {', '.join(known)}", self.name)
        steps = self.warmup_steps
        require("schedule.warmup_steps", steps >= 0, "not be negative", steps)
        for option in ("floor", "decay_fraction"):
            value = getattr(self, option)
            require(f"schedule.{option}", 0.0 <= value <= 1.0, "be in [0, 1]", value)


class ScheduleFactor:
    """The share of the peak rate at a step (0 = the first update); the floor (or 1) after all."""

    def __init__(self, config: ScheduleConfig, total_steps: float) -> None:
        self.config = config
        self.total_steps = total_steps

    def __call__(self, step: int) -> float:
        warmup, floor = self.config.warmup_steps, self.config.floor
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.config.name == "constant" or math.isinf(self.total_steps):
            return 1.0
        begin = warmup
        if self.config.name == "wsd":
            begin = max(warmup, round(self.total_steps * (1 - self.config.decay_fraction)))
        # The last update is step total - 1: it gets the floor.
        done = (step - begin) / max(1, self.total_steps - 1 - begin)
        done = min(1.0, max(0.0, done))
        if self.config.name == "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * (1 - done)
