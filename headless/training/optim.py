"""AdamW with the right parameter groups, and learning-rate schedules as functions of the step."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from headless.errors import HeadlessError

SETTINGS = ("initial_lr", "betas", "eps", "weight_decay")
ScheduleName = Literal["cosine", "linear", "wsd", "constant"]


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019).

    Args:
        lr: peak learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: applied to weight matrices; never to biases and norms.
        decay_embeddings: whether embedding tables and an untied head decay too.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "eps"):
            value = getattr(self, name)
            _require(f"optimizer.{name}", 0.0 < value < math.inf, "be positive and finite", value)
        value = self.weight_decay
        _require("optimizer.weight_decay", 0.0 <= value < math.inf, "not be negative", value)
        inside = all(0.0 <= beta < 1.0 for beta in self.betas)
        _require("optimizer.betas", inside, "be in [0, 1)", list(self.betas))


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over optimizer steps, as a share of the peak.

    Args:
        name: after the warm-up, "cosine" or "linear" fall to the floor at the last step; "wsd"
            (warm-up, stable, decay: Hu et al. 2024) stays and falls linearly at the end;
            "constant" stays.
        warmup_steps: steps of the linear warm-up.
        floor: the share of the peak that is left at the last step.
        decay_fraction: "wsd" only: the share of all steps in which the rate falls.
    """

    name: ScheduleName = "cosine"
    warmup_steps: int = 0
    floor: float = 0.1
    decay_fraction: float = 0.2

    def __post_init__(self) -> None:
        known = get_args(ScheduleName)
        _require("schedule.name", self.name in known, f"be one of {', '.join(known)}", self.name)
        steps = self.warmup_steps
        _require("schedule.warmup_steps", steps >= 0, "not be negative", steps)
        for option in ("floor", "decay_fraction"):
            value = getattr(self, option)
            _require(f"schedule.{option}", 0.0 <= value <= 1.0, "be in [0, 1]", value)


def _require(name: str, holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise HeadlessError(f"{name} must {rule}, got {value}")


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


def parameter_groups(module: nn.Module, config: AdamWConfig) -> list[dict]:
    """Two groups: what decays and what does not. Each parameter stands in exactly one.

    Matrices decay. Vectors (biases, norm gains) never do, nor do the parameters of norm layers.
    Embedding tables and an untied head (a matrix with one row a token) decay on request.
    """
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(p) for name, p in module.named_parameters() if name.endswith("weight_VD")}
    norms = {
        id(p)
        for m in module.modules()
        if "norm" in type(m).__name__.lower()
        for p in m.parameters(recurse=False)
    }
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and id(parameter) not in norms
        decays = is_matrix and (config.decay_embeddings or id(parameter) not in tables)
        (decay if decays else rest).append(parameter)
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    module: nn.Module, config: AdamWConfig, schedule: ScheduleConfig, total_steps: float
) -> tuple[AdamW, LambdaLR]:
    """The optimizer over all trainable parameters and its schedule (stepped once an update)."""
    optimizer = AdamW(
        parameter_groups(module, config),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=all(p.dtype.is_floating_point for p in module.parameters()),
    )
    factor = ScheduleFactor(schedule, total_steps)
    # A function and not the object: LambdaLR would put the object's state into checkpoints, and a
    # run that is resumed with more steps would keep the schedule of fewer.
    return optimizer, LambdaLR(optimizer, lambda step: factor(step))


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What a config decides of each parameter group; a checkpoint puts its own in their place."""
    return [{name: group[name] for name in SETTINGS} for group in optimizer.param_groups]


def use_settings(
    optimizer: torch.optim.Optimizer, schedule: LambdaLR, settings: list[dict[str, Any]]
) -> None:
    """Go on with these settings, at the step that a checkpoint restored."""
    schedule.base_lrs = [chosen["initial_lr"] for chosen in settings]
    for group, chosen, factor in zip(
        optimizer.param_groups, settings, schedule.lr_lambdas, strict=True
    ):
        group.update(chosen)
        group["lr"] = chosen["initial_lr"] * factor(schedule.last_epoch)


def check_clipping(largest: float | None) -> None:
    """Refuse a `gradient_clip_val` that would turn gradients around."""
    if largest is not None and not largest >= 0:
        raise HeadlessError(
            f"trainer.gradient_clip_val must be a positive number, got {largest}: 0 clips nothing"
        )
