"""One config, one run."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.progress import progress_of
from headless.callbacks.wandb_logger import TokenWandbLogger
from headless.errors import HeadlessError
from headless.files import exclusive, write_json, write_text
from headless.isolation import isolated
from headless.models.backbone import num_parameters, resolve
from headless.progress import Display, Report
from headless.runs.directory import RunDirectory, begin_run
from headless.runs.environment import describe_environment
from headless.runs.resume import Change, changes
from headless.runs.run import Run
from headless.training.assembly import RunCLI, arguments_of, build
from headless.training.checkpoint_io import read_own_checkpoint
from headless.training.compat import ShardedStrategy
from headless.training.devices import keep_freed_memory
from headless.training.resume import check_resume, is_finished


@isolated()
def pretrain(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    validate_first: bool = False,
    progress: bool | Report = False,
    on_validation: Callable[[Run], None] | None = None,
) -> Run:
    """Train a model.

    Args:
        config: a YAML file or its content, as `headless pretrain --config` takes it.
        overrides: settings to change, nested or by dotted name: `{"model.optimizer.lr": 1e-3}`.
        validate_first: log the validation scores before the first step, too.
        progress: show it, or a function that gets (phase, done, in all).
        on_validation: gets the run after each validation, on the first process and outside
            training time.

    Raises:
        HeadlessError: a wrong key, type or value; a run directory that exists, where neither
            run.resume nor run.overwrite is set; another process that trains it.
    """
    with Display(progress) as display:
        cli = build(arguments_of(config, overrides), display)
        if on_validation is not None:
            after = partial(_after_validation, on_validation)
            cli.trainer.callbacks.append(LambdaCallback(on_validation_end=after))  # type: ignore[attr-defined]
        return Run(fit(cli, validate_first=validate_first))


def _after_validation(listener: Callable[[Run], None], trainer: Trainer, module: Any) -> None:
    if trainer.is_global_zero and trainer.state.fn == "fit":
        with progress_of(trainer).paused():
            listener(Run(trainer.default_root_dir))


def fit(cli: RunCLI, *, validate_first: bool = False) -> Path:
    """Train what `build` made; returns the run directory.

    One process writes to the run directory at a time. What cannot be begun, or gone on with, leaves
    everything as it was.
    """
    run, directory = cli.run, cli.run.directory
    keep_freed_memory(cli.trainer.strategy.root_device)
    with exclusive(directory.path) if is_first_process() else nullcontext():
        path = directory.last_checkpoint if run.resume else None
        if path is None or not path.is_file():
            with _begin(cli, directory):
                _train(cli, directory, validate_first=validate_first)
            return directory.path
        checkpoint = read_own_checkpoint(path)
        step = int(checkpoint["global_step"])
        # On every rank: one that went on alone would wait for the others.
        differing = changes(_config_before(cli, directory), yaml.safe_load(_config_text(cli)))
        changed = check_resume(cli, checkpoint, differing)
        if is_finished(cli, checkpoint):
            if is_first_process():
                unused = ", ".join(str(change) for change in changed if change.is_used)
                cli.display.say(
                    f"{directory.path} is finished ({step} steps): train on with "
                    "--trainer.max_steps or --trainer.max_epochs"
                    + (f"; not used: {unused}" if unused else "")
                )
            return directory.path
        if not isinstance(cli.trainer.strategy, ShardedStrategy):  # which reads for itself
            cli.checkpoints.given = checkpoint
        del checkpoint
        with _begin(cli, directory, changed, step):
            _train(cli, directory, path)
    return directory.path


def _train(
    cli: RunCLI,
    directory: RunDirectory,
    checkpoint: Path | None = None,
    validate_first: bool = False,
) -> None:
    if validate_first:
        cli.trainer.validate_loop.inference_mode = False  # its sums are updated in training too
        cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except ValueError as error:
        if "val_check_interval" in str(error):  # more than an epoch has, which Lightning counts
            raise HeadlessError(f"trainer.{str(error).replace('`', '').strip()}") from error
        raise
    except SystemExit:
        if not cli.trainer.interrupted:
            raise
        if directory.last_checkpoint.is_file():
            cli.display.say(
                f"stopped at step {cli.trainer.global_step}; go on from the last "
                f"checkpoint with: headless pretrain --config {directory.config} --run.resume true"
            )
        raise KeyboardInterrupt from None


def _say_size(cli: RunCLI) -> None:
    """The size, and what decided it: a width that is named decides more than itself."""
    config = cli.model.backbone_config
    count, embeddings = num_parameters(cli.model), cli.model.embedding_VD.numel()
    cli.display.say(
        f"{config.family}: {count:,} parameters, {embeddings:,} of them token embeddings"
    )
    _, derived = resolve(config)
    if derived:
        sizes = ", ".join(f"{name} {value}" for name, value in derived.items())
        cli.display.say(
            f"{sizes}: from the width, the heads and the blocks, in the ratios of "
            f"{config.preset or config.family}; set them in model.backbone.extra for others"
        )
    warmup, steps = cli.model.schedule_config.warmup_steps, cli.trainer.max_steps
    if 0 < steps <= warmup:
        cli.display.say(
            f"the warm-up of {warmup} steps is as long as the run of {steps} or longer: "
            f"the rate comes to {steps / (warmup + 1):.0%} of model.optimizer.lr"
        )


def is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _begin(
    cli: RunCLI, directory: RunDirectory, changed: Sequence[Change] = (), step: int = 0
) -> Iterator[None]:
    """The run directory for the training in the block; other ranks than the first need none."""
    if not is_first_process():
        yield
        return
    text = _config_text(cli)

    def describe(run: RunDirectory) -> None:
        if changed:
            run.keep_config(step)
        write_text(run.config, text)
        environment = describe_environment()
        environment["precision"] = str(cli.trainer.precision)
        environment["devices"] = cli.trainer.world_size
        write_json(run.environment, environment, sort_keys=True)
        if step == 0:  # what an earlier start left may be of other data
            shutil.rmtree(run.tokenizer, ignore_errors=True)
        if not run.tokenizer.exists() and cli.datamodule.tokenizer_sha256 is not None:
            shutil.copytree(cli.datamodule.dataset.tokenizer_path, run.tokenizer)

    with begin_run(
        directory,
        describe,
        resume=cli.run.resume,
        overwrite=cli.run.overwrite,
        step=step,
    ):
        _say_size(cli)
        if used := [str(change) for change in changed if change.is_used]:
            cli.display.say(f"from step {step} on: {', '.join(used)}")
        for logger in cli.trainer.loggers:
            if isinstance(logger, TokenWandbLogger):
                logger.log_hyperparams(yaml.safe_load(text))
        yield


def _config_text(cli: RunCLI, config: Any = None) -> str:
    """A parsed config as a file that starts the same run again, by default the one of this run."""
    config = (cli.config if config is None else config).clone()
    config.run.resume = config.run.overwrite = False  # running it again is a new run
    for name in ("config", "parts"):
        config.pop(name, None)
    return cli.parser.dump(config, skip_none=False, skip_link_targets=True)


def _config_before(cli: RunCLI, directory: RunDirectory) -> dict[str, Any]:
    """A run's config as this version would write it, with the defaults of what it leaves out."""
    if not directory.config.is_file():
        return yaml.safe_load(_config_text(cli))
    try:
        config = cli.parser.parse_path(str(directory.config))
    except (HeadlessError, ValueError):  # of a version with other options, or damaged
        return directory.read_config()
    return yaml.safe_load(_config_text(cli, config))
