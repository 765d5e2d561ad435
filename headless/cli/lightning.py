"""LightningCLI with our parts: what `pretrain` and `validate` share.

Types and docstrings of the module, the data module and the callbacks are the schema of a config.
"""

import inspect
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, RichModelSummary
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import headless.objectives
from headless.analysis.monitor import LaboratoryMonitor
from headless.callbacks.checkpoint import RunCheckpoint
from headless.callbacks.geometry import GeometryMonitor
from headless.callbacks.memory import MemoryMonitor
from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.progress import ProgressMonitor
from headless.callbacks.progress_bar import StepProgressBar
from headless.callbacks.run_summary import RunSummary
from headless.callbacks.samples import SampleWriter
from headless.callbacks.throughput import ThroughputMonitor
from headless.callbacks.wandb_logger import TokenWandbLogger
from headless.cli.known_options import check_options
from headless.cli.parsing import CommandParser
from headless.cli.settings import check_settings
from headless.data.datamodule import TokenDataModule
from headless.errors import HeadlessError, UnforeseenError
from headless.objectives import Objective
from headless.runs.directory import RunDirectory
from headless.training.checkpoint_io import AtomicCheckpointIO
from headless.training.devices import choose_accelerator
from headless.training.loops import validate_at_the_end
from headless.training.module import PretrainingModule
from headless.training.optim import check_clipping
from headless.training.precision import choose_precision
from headless.training.strategies import choose_strategy, cluster_plugins, tune

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
        for tag in self.tags:
            if not 1 <= len(tag) <= TAG or not tag.isprintable():
                raise HeadlessError(f"run.tags must be printable, of 1 to {TAG} characters each")
        if len(set(self.tags)) < len(self.tags):
            raise HeadlessError("run.tags holds one twice: keep one")

    @property
    def directory(self) -> RunDirectory:
        """The run's directory."""
        return RunDirectory(Path(self.root) / self.name)


OBJECTIVES = {
    name: value
    for name, value in vars(headless.objectives).items()
    if inspect.isclass(value) and issubclass(value, Objective) and value is not Objective
}


class RunParser(CommandParser, LightningArgumentParser):
    """Lightning's parser with our one-line complaints."""

    def known_keys(self) -> list[str]:
        """Also what the objectives are made with."""
        parts = {name for c in OBJECTIVES.values() for name in inspect.signature(c).parameters}
        return [*super().known_keys(), *sorted(parts)]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """An unknown objective is answered with the known ones."""
        unknown = re.search(r"Expected a dot import path string: (\S+)", message)
        if unknown and 'key "model.objective"' in message:
            near = get_close_matches(unknown.group(1), OBJECTIVES, n=1)
            raise HeadlessError(
                f"there is no objective {unknown.group(1)!r}; "
                + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(OBJECTIVES)}")
            ) from ex
        super().error(message, ex)


class RunCLI(LightningCLI):
    """Builds module, data, trainer and callbacks from a config, and runs nothing."""

    config: Any

    def __init__(self, arguments: list[str], prog: str, **trainer_defaults: Any) -> None:
        super().__init__(
            PretrainingModule,
            TokenDataModule,
            args=arguments,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": prog, "allow_abbrev": False},
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "use_distributed_sampler": False,  # ours deals the blocks to the ranks
                **trainer_defaults,
            },
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Our parser, otherwise as Lightning makes it."""
        kwargs.setdefault("dump_header", [])
        parser = RunParser(**kwargs)
        parser.add_argument("--config", action="config", help="a config file in YAML")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The named slots, and what only the data knows."""
        parser.add_class_arguments(RunConfig, "run")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(ThroughputMonitor, "throughput")
        parser.add_lightning_class_args(MemoryMonitor, "memory")
        parser.add_lightning_class_args(GeometryMonitor, "geometry")
        parser.add_lightning_class_args(LaboratoryMonitor, "laboratory")
        parser.add_lightning_class_args(SampleWriter, "samples")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed)
        parser.link_arguments("data.sequence_length", "model.sequence_length")
        parser.link_arguments("data.task", "model.task")
        parser.link_arguments("data.vocab_size", "model.vocab_size", apply_on="instantiate")
        parser.link_arguments("data.eos_token_id", "model.eos_token_id", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Also the keys that are overruled by another's value."""
        check_options(args)
        super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """What needs no part of the run to be seen."""
        for action in self.parser._actions:
            kinds, value = get_args(getattr(action, "_typehint", None)), action.default
            given = self.config.get(action.dest, value) if kinds or value is not None else value
            if given is None and value is not None and type(None) not in kinds:
                raise HeadlessError(f"{action.dest} must not be null")
        check_settings(self.config, self.trainer_defaults)

    def instantiate_classes(self) -> None:
        """Values that parse but fit nothing are the user's to mend too."""
        try:
            super().instantiate_classes()
        except (HeadlessError, MemoryError, OSError):
            raise
        except (ValueError, MisconfigurationException) as error:
            raise HeadlessError(str(error)) from error
        except Exception as error:  # noqa: BLE001 - any class that a config names
            raise UnforeseenError(
                f"these settings fit no run: {type(error).__name__}: {error}"
            ) from error

    @property
    def run(self) -> RunConfig:
        """Where the run is kept."""
        return self.config_init.run

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the run directory, the loggers and the callbacks that are always on."""
        run, directory = self.run, self.run.directory
        metrics_file = MetricsFileLogger(directory.path)
        loggers: list[Any] = [metrics_file]
        if run.wandb != "disabled":
            loggers.insert(
                0,  # first: a point that the file holds has been given to W&B
                TokenWandbLogger(
                    directory.path,
                    metrics_file,
                    name=run.name,
                    project=run.project,
                    group=run.group or run.name,
                    tags=[*run.tags, type(self.model.objective).__name__],
                    mode=run.wandb,
                ),
            )
        config = self._get(self.config_init, "trainer")
        config.accelerator = choose_accelerator(config.accelerator)
        given = _listed(config.plugins)
        if not any(isinstance(plugin, Precision) for plugin in given):
            config.precision = choose_precision(config.precision, config.accelerator)
        check_clipping(config.gradient_clip_val)
        if config.logger and config.logger is not True:  # the user's own come after ours
            loggers += _listed(config.logger)
        config.strategy = choose_strategy(config.strategy)
        config.plugins = [*given, *cluster_plugins(given), AtomicCheckpointIO()]
        config.callbacks = [
            ProgressMonitor(),
            RunSummary(name=run.name, group=run.group, tags=run.tags),
            *_listed(config.callbacks),
        ]
        if config.enable_model_summary:
            config.callbacks.append(RichModelSummary())  # Lightning's other one only logs
        own_bar = any(isinstance(callback, ProgressBar) for callback in config.callbacks)
        if config.enable_progress_bar is not False and not own_bar:
            config.callbacks.append(StepProgressBar())
        trainer = super().instantiate_trainer(
            default_root_dir=str(directory.path), logger=loggers, **kwargs
        )
        tune(trainer.strategy)
        validate_at_the_end(trainer)
        return trainer


def _listed(value: Any) -> list[Any]:
    """Where a config may give several, or one, or none."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _seed(value: bool | int) -> int:
    if isinstance(value, bool):
        raise HeadlessError("seed_everything must be a whole number: a run is made to be repeated")
    if not 0 <= value < 2**32:
        raise HeadlessError(f"seed_everything must be from 0 to 4294967295, got {value}")
    return value
