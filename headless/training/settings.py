"""Settings of a run: its place and name, and those that parse but cannot be meant.

Every setting is used or refused; none is overruled in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory
from headless.training.options import GROUPS

LABEL, TAG, NOT_IN_PROJECT = 128, 64, set("/\\#?%:")  # as W&B has it


@dataclass(frozen=True)
class RunConfig:
    """Where a run is kept and how it is labelled.

    Args:
        name: the run's directory below `root`, and its name in W&B and in reports.
        root: the directory of all runs.
        group: runs that belong together (W&B's group).
        tags: words to filter by.
        resume: go on from the directory's last checkpoint; start where there is none yet.
        overwrite: start anew although the directory exists; the old one is moved aside.
        wandb: "offline" (no account; `wandb sync` uploads it), "online" or "disabled".
        project: W&B's project.
    """

    name: str
    root: Path = Path("runs")
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    resume: bool = False
    overwrite: bool = False
    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "headless"

    def __post_init__(self) -> None:
        labels = {"run.group": self.group or "", "run.project": self.project}
        for name, text in {"run.name": self.name, **labels}.items():
            if len(text) > LABEL or not text.isprintable():
                raise HeadlessError(f"{name} must be printable, at most {LABEL} characters")
        if not self.project or set(self.project) & NOT_IN_PROJECT:
            raise HeadlessError(
                f"run.project must be a name without any of {' '.join(sorted(NOT_IN_PROJECT))}, "
                f"got {self.project!r}"
            )
        if not all(1 <= len(tag) <= TAG and tag.isprintable() for tag in self.tags):
            raise HeadlessError(f"run.tags must be printable, of 1 to {TAG} characters each")
        if len(set(self.tags)) < len(self.tags):
            raise HeadlessError("run.tags holds one twice: keep one")

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(Path(self.root) / self.name)


# The lowest number, and the one that means "no limit", where Lightning itself takes any.
NUMBERS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("accumulate_grad_batches", "log_every_n_steps"), (1,)),
    **{"check_val_every_n_epoch": (1,), "max_steps": (1, -1), "max_epochs": (1, -1)},
    **dict.fromkeys(("min_steps", "min_epochs", "num_sanity_val_steps"), (0, -1)),
}
# What these would say is decided elsewhere, or never comes to be: the value that changes nothing,
# and what to set instead.
DECIDED: dict[str, tuple[Any, str]] = {
    "default_root_dir": (None, "a run is kept in run.root/run.name: set those"),
    "use_distributed_sampler": (False, "the data module deals the sequences to the devices"),
    "overfit_batches": (0.0, "for few sequences set trainer.limit_train_batches or prepare less"),
    "fast_dev_run": (False, "for a short run set trainer.max_steps and trainer.limit_val_batches"),
    "barebones": (False, "a run writes its numbers and checkpoints: see run.wandb and checkpoint"),
    "limit_test_batches": (None, "nothing is tested here: see trainer.limit_val_batches"),
    "limit_predict_batches": (None, "nothing is predicted here"),
    "model_registry": (None, "checkpoints stay in the run directory"),
    "enable_autolog_hparams": (True, "W&B gets the run's config: see run.wandb"),
    "enable_checkpointing": (True, "a run that can go on has checkpoints: see checkpoint"),
    "logger": (True, "metrics.jsonl is always written; run.wandb disabled turns W&B off"),
}


def check_settings(config: Any, defaults: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant; `defaults` of the trainer are what a command sets for itself."""
    for name in GROUPS:
        if not isinstance(value := config.get(name), Namespace):
            raise HeadlessError(f"{name} holds settings, each with its name, and not {value!r}")
    trainer = config.trainer
    for name, (lowest, *others) in NUMBERS.items():
        if (value := trainer[name]) is not None and value < lowest and value not in others:
            words = " or ".join([f"at least {lowest}", *map(str, others)])
            raise HeadlessError(f"trainer.{name} must be {words}, got {value}")
    for name in ("limit_train_batches", "val_check_interval"):
        if trainer[name] == 0:
            raise HeadlessError(f"trainer.{name} must be above 0, got {trainer[name]}")
    for name, (harmless, instead) in DECIDED.items():
        value = trainer[name]
        unset = value is None or value == harmless or (name in defaults and value == defaults[name])
        if not unset and not (name == "logger" and value):
            raise HeadlessError(f"trainer.{name} {value} would have no effect here: {instead}")
    _check_unused(config)


def _check_unused(config: Any) -> None:
    """Settings of what was not chosen."""
    schedule, data = config.model.schedule, config.data
    for name, differs, wanted in (
        ("data.mask_probability", data.mask_probability != 0.15 and data.task != "masked",
         "data.task masked"),
        ("model.schedule.decay_fraction", schedule.decay_fraction != 0.2 and schedule.name != "wsd",
         "model.schedule.name wsd"),
        ("model.schedule.floor", schedule.floor != 0.1 and schedule.name == "constant",
         "a schedule that falls"),
    ):  # fmt: skip
        if differs:
            raise HeadlessError(f"{name} would have no effect here: it needs {wanted}")
