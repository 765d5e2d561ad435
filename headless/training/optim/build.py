"""An optimizer and its schedule from a config, and today's settings after a resume."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from headless.errors import HeadlessError, suggestion
from headless.training.optim.adamw import adamw
from headless.training.optim.groups import parameter_groups, roles
from headless.training.optim.muon import muon
from headless.training.optim.schedule import ScheduleConfig, ScheduleFactor
from headless.training.optim.settings import OptimizerConfig
from headless.training.optim.table import WithTables

OURS: dict[str, Callable[[nn.Module, OptimizerConfig], Optimizer]] = {"AdamW": adamw, "Muon": muon}
SETTINGS = ("initial_lr", "betas", "eps", "weight_decay")


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, schedule: ScheduleConfig, total_steps: float
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer over all trainable parameters and its schedule (stepped once an update)."""
    make = OURS.get(config.class_path.removeprefix("torch.optim."), another)
    try:
        optimizer = make(module, config)
    except (TypeError, ValueError) as error:
        raise HeadlessError(
            f"model.optimizer: {config.class_path} does not take these settings: {error}"
        ) from error
    if tables := list(getattr(module, "tables_by_row", ())):
        decay = config.weight_decay if config.decay_embeddings else 0.0
        options: dict[str, Any] = {"lr": config.lr * config.table_lr, "weight_decay": decay}
        options |= {"betas": config.betas, "eps": config.eps}
        optimizer = WithTables(optimizer, tables, options, config.table == "rowwise")
    factor = ScheduleFactor(schedule, total_steps)
    # A function and not the object: LambdaLR would put the object's state into checkpoints, and a
    # run that is resumed with more steps would keep the schedule of fewer.
    return optimizer, LambdaLR(optimizer, lambda step: factor(step))


def another(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """A class by its path, with rates and weight decay by group and arguments of its own."""
    path, default = config.class_path, OptimizerConfig()
    if (config.betas, config.eps) != (default.betas, default.eps):
        raise HeadlessError(
            "model.optimizer.betas and eps are those of AdamW and Muon: write those of "
            f"{path} into model.optimizer.init_args"
        )
    groups = parameter_groups(roles(module), config)
    optimizer = find_class(path)
    if "weight_decay" not in inspect.signature(optimizer).parameters:
        for group in groups:
            del group["weight_decay"]
    return optimizer(groups, lr=config.lr, **config.init_args)  # type: ignore[call-arg]


def find_class(path: str) -> type[Optimizer]:
    """Of torch, or of a module that is imported already: a config's name imports nothing else."""
    place, _, name = path.rpartition(".")
    if not place:
        raise HeadlessError(
            f"there is no optimizer {path!r}; {suggestion(path, OURS, 'known')}; others by their "
            "dotted path"
        )
    if place.split(".")[:2] == ["torch", "optim"]:
        import_module("torch.optim")
    elif place not in sys.modules:
        raise HeadlessError(f"model.optimizer.class_path {path}: add --import {place}")
    found = getattr(sys.modules.get(place), name, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise HeadlessError(f"model.optimizer.class_path {path} is no torch.optim.Optimizer")
    return found


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What a config decides of each parameter group; a checkpoint puts its own in their place."""
    groups = optimizer.param_groups
    return [{name: group[name] for name in SETTINGS if name in group} for group in groups]


def use_settings(optimizer: Optimizer, schedule: LambdaLR, settings: list[dict[str, Any]]) -> None:
    """Go on with these settings, at the step that a checkpoint restored."""
    schedule.base_lrs = [chosen["initial_lr"] for chosen in settings]
    for group, chosen, factor in zip(
        optimizer.param_groups, settings, schedule.lr_lambdas, strict=True
    ):
        group.update(chosen)
        group["lr"] = chosen["initial_lr"] * factor(schedule.last_epoch)
