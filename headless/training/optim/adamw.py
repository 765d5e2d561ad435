"""AdamW (Loshchilov and Hutter 2019), on all parameters."""

from typing import Any

from torch import nn
from torch.optim import AdamW

from headless.training.optim.groups import parameter_groups, roles
from headless.training.optim.settings import OptimizerConfig


def adamw_options(module: nn.Module, config: OptimizerConfig) -> dict[str, Any]:
    fused = all(p.dtype.is_floating_point for p in module.parameters())
    return {"lr": config.lr, "betas": config.betas, "eps": config.eps, "fused": fused}


def adamw(module: nn.Module, config: OptimizerConfig) -> AdamW:
    config.check_own("betas", "eps")
    groups = parameter_groups(roles(module), config)
    return AdamW(groups, **(adamw_options(module, config) | config.init_args))
