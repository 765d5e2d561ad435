"""Optimizers, one file each, and learning-rate schedules as functions of the step."""

from headless.training.optim.build import build_optimizer, settings_of, use_settings
from headless.training.optim.groups import parameter_groups, roles
from headless.training.optim.schedule import ScheduleConfig, ScheduleFactor
from headless.training.optim.settings import OptimizerConfig, check_clipping
from headless.training.optim.table import settle

__all__ = [
    "OptimizerConfig",
    "ScheduleConfig",
    "ScheduleFactor",
    "build_optimizer",
    "check_clipping",
    "parameter_groups",
    "roles",
    "settings_of",
    "settle",
    "use_settings",
]
