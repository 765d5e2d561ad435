"""A run made from its config: what `pretrain`, `validate` and `tune_head` share.

Types and docstrings of the module, the data module and the callbacks are the schema of a config.
"""

import inspect
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Union, get_args

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, RichModelSummary
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import headless.objectives
from headless.callbacks.checkpoint import RunCheckpoint
from headless.callbacks.laboratory import LaboratoryMonitor
from headless.callbacks.memory import MemoryMonitor
from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.progress import ProgressMonitor
from headless.callbacks.progress_bar import StepProgressBar
from headless.callbacks.run_summary import RunSummary
from headless.callbacks.samples import SampleWriter
from headless.callbacks.throughput import ThroughputMonitor
from headless.callbacks.wandb_logger import TokenWandbLogger
from headless.data.datamodule import TokenDataModule
from headless.errors import HeadlessError, UnforeseenError, suggestion
from headless.objectives import Objective
from headless.progress import Display
from headless.runs.directory import RunDirectory, check_name
from headless.training.checkpoint_io import AtomicCheckpointIO
from headless.training.compat import tune, validate_at_the_end
from headless.training.devices import (
    choose_accelerator,
    choose_precision,
    choose_strategy,
    cluster_plugins,
)
from headless.training.module import PretrainingModule
from headless.training.optim import check_clipping
from headless.training.options import check_options, with_parts
from headless.training.parsing import CommandParser, read_words, take_imports
from headless.training.settings import RunConfig, check_settings

CALLBACKS = {
    "checkpoint": RunCheckpoint,
    "throughput": ThroughputMonitor,
    "memory": MemoryMonitor,
    "laboratory": LaboratoryMonitor,
    "samples": SampleWriter,
}
OBJECTIVES = {
    name: value
    for name, value in vars(headless.objectives).items()
    if inspect.isclass(value) and issubclass(value, Objective) and value is not Objective
}


class RunParser(CommandParser, LightningArgumentParser):
    """Lightning's parser with our one-line complaints."""

    def known_keys(self) -> list[str]:
        parts = {name for c in OBJECTIVES.values() for name in inspect.signature(c).parameters}
        return [*super().known_keys(), *sorted(parts)]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"Expected a dot import path string: (\S+)", message)
        if unknown and 'key "model.objective"' in message:
            hint = suggestion(name := unknown.group(1), OBJECTIVES, "known")
            raise HeadlessError(f"there is no objective {name!r}; {hint}") from ex
        super().error(message, ex)


class RunCLI(LightningCLI):
    """Builds module, data, trainer and callbacks from a config, and runs nothing."""

    config: Any

    def __init__(
        self,
        arguments: list[str],
        prog: str = "headless pretrain",
        *,
        display: Display | None = None,
        **trainer_defaults: Any,
    ) -> None:
        self.display = display or Display(False)
        self.checkpoints = AtomicCheckpointIO()
        super().__init__(
            PretrainingModule,
            TokenDataModule,
            args=arguments,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": prog},
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "use_distributed_sampler": False,  # ours deals the blocks to the ranks
                **trainer_defaults,
            },
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [])
        parser = RunParser(**kwargs)
        parser.add_argument("--config", action="config", help="a config file in YAML")
        parser.add_argument(
            "--parts", type=list[str], default=[], help="in a config: files that come before it"
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The named slots, and what only the data knows."""
        parser.add_class_arguments(RunConfig, "run")
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed)
        parser.link_arguments("data.sequence_length", "model.sequence_length")
        parser.link_arguments("data.task", "model.task")
        parser.link_arguments("data.vocab_size", "model.vocab_size", apply_on="instantiate")
        parser.link_arguments("data.eos_token_id", "model.eos_token_id", apply_on="instantiate")
        _integers_first(parser)
        optimizer: Any = next(a for a in parser._actions if a.dest == "model.optimizer")
        optimizer.resolve_subclass_spec = _optimizer_spec

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_options(args)
        super().parse_arguments(parser, with_parts(args))

    def before_instantiate_classes(self) -> None:
        self.config.pop("parts")  # they are in it
        for action in self.parser._actions:
            kinds, value = get_args(getattr(action, "_typehint", None)), action.default
            if value is None or type(None) in kinds:
                continue
            if self.config.get(action.dest, value) is None:
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
        plugins = _as_list(config.plugins)
        if not any(isinstance(plugin, Precision) for plugin in plugins):
            config.precision = choose_precision(config.precision, config.accelerator)
        check_clipping(config.gradient_clip_val)
        if config.logger and config.logger is not True:  # the user's own come after ours
            loggers += _as_list(config.logger)
        config.strategy = choose_strategy(config.strategy)
        config.plugins = [*plugins, *cluster_plugins(plugins), self.checkpoints]
        config.callbacks = [
            ProgressMonitor(),
            RunSummary(name=run.name, group=run.group, tags=run.tags or []),
            *_as_list(config.callbacks),
        ]
        if config.enable_model_summary:
            config.callbacks.append(RichModelSummary())  # Lightning's other one only logs
        if not any(isinstance(callback, ProgressBar) for callback in config.callbacks):
            config.enable_progress_bar = (
                config.enable_progress_bar is not False and self.display.is_wanted
            )
            if config.enable_progress_bar:
                config.callbacks.append(StepProgressBar(self.display))
        try:
            trainer = super().instantiate_trainer(
                default_root_dir=str(directory.path), logger=loggers, **kwargs
            )
        except TypeError as error:  # Lightning's complaint about some values
            raise HeadlessError(f"trainer: {error}") from error
        tune(trainer.strategy)
        validate_at_the_end(trainer)
        return trainer


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _integers_first(parser: LightningArgumentParser) -> None:
    """Read 4 as 4 and not as 4.0, which is another limit: a parser takes the first type that fits.

    Lightning writes int | float; but Python keeps one object for unions of equal types, whose order
    is that of whichever library came first.
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if {int, float} <= set(kinds):
            typehint: Any = Union[tuple(sorted(kinds, key=lambda kind: kind is not int))]  # noqa: UP007
            action._typehint = typehint  # type: ignore[attr-defined]


def _optimizer_spec(value: Any) -> Any:
    """What `model.optimizer` holds: a class_path is a setting among others, not the parser's to
    import, and a name alone is a class_path.
    """
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", value)
    return Namespace(class_path=value) if is_name and not Path(value).is_file() else value


def _seed(value: bool | int) -> int:
    if isinstance(value, bool):
        raise HeadlessError("seed_everything must be a whole number: a run is made to be repeated")
    if not 0 <= value < 2**32:
        raise HeadlessError(f"seed_everything must be from 0 to 4294967295, got {value}")
    return value


def build(arguments: Sequence[str], display: Display | None = None) -> RunCLI:
    """Everything of a run, made from words as on a command line, and not started.

    It has `.model`, `.datamodule`, `.trainer` and the parsed `.config`. Progress and messages go to
    `display`, nowhere by default.
    """
    quiet_lightning()
    arguments = take_imports(arguments)
    cli = RunCLI([*arguments, *_in_place(arguments)], display=display)
    check_name(cli.run.name)
    return cli


def arguments_of(
    config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> list[str]:
    """A config file, or its content, and changes to it, in the words of a command line."""
    text = json.dumps(config, default=str) if isinstance(config, Mapping) else str(config)
    return ["--config", text, *(f"--{k}={v}" for k, v in _flat(overrides or {}, ""))]


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and "class_path" not in value and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            is_text = isinstance(value, str | Path)
            yield f"{above}{key}", str(value) if is_text else json.dumps(value, default=str)


def quiet_lightning() -> None:
    """Leave the terminal to the progress bar and to what a user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("WANDB_SILENT", "true")
    for needless in (
        "does not have many workers",  # reading a memory map needs none
        "is smaller than the logging interval",
        "args parameter is intended to run from within Python",  # that is what it does here
        "when logging on epoch level in distributed setting",  # what is logged is reduced already
        "in eval mode at the start of training",  # a frozen backbone is meant to be
        r"isinstance\(treespec, LeafSpec\)",  # Lightning's own call, of torch's older name
    ):
        warnings.filterwarnings("ignore", f".*{needless}.*")


def _in_place(arguments: Sequence[str]) -> list[str]:
    """A run that goes on by its own config does so where that lies, moved or copied."""
    options = {name: value or "" for name, value, _ in read_words(arguments)}
    config = Path(options.get("--config", ""))
    place = config.parent if config.parent.name not in ("", "..") else config.absolute().parent
    run = RunDirectory(place)
    resumes = options.get("--run.resume", "").lower() == "true"
    if not resumes or config.name != run.config.name or not run.last_checkpoint.is_file():
        return []
    location = {"--run.root": str(place.parent), "--run.name": place.name}
    return [f"{name}={value}" for name, value in location.items() if name not in options]
