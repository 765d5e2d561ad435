"""`headless pretrain`: one config, one run."""

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.wandb_logger import TokenWandbLogger
from headless.cli.closing import closing
from headless.cli.lightning import RunCLI
from headless.errors import HeadlessError
from headless.files import exclusive
from headless.models.backbone import resolve
from headless.runs.directory import RunDirectory, check_name
from headless.runs.environment import describe_environment
from headless.runs.resume import Change, changes
from headless.runs.start import begin_run
from headless.training.checkpoint_io import read_own_checkpoint
from headless.training.imports import needed_imports, take_imports
from headless.training.resume import check_resume, is_finished


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


def build(arguments: list[str]) -> RunCLI:
    """Everything of a run, built from a config and not started: for the command line and notebooks.

    Args:
        arguments: as on the command line, e.g. `["--config", "configs/demo/headless.yaml"]`.

    Returns:
        An object with `.model`, `.datamodule`, `.trainer` and the parsed `.config`.

    Raises:
        HeadlessError: a wrong key or type, with the nearest valid key; bad data; bad sizes.
    """
    quiet_lightning()
    arguments = take_imports(arguments)
    cli = RunCLI([*arguments, *_in_place(arguments)], prog="headless pretrain")
    check_name(cli.run.name)
    return cli


def _in_place(arguments: Sequence[str]) -> list[str]:
    """A run that goes on by its own config does so where that lies, moved or copied."""
    options = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        options[name] = value if equals else following
    config = Path(options.get("--config", ""))
    place = config.parent if config.parent.name not in ("", "..") else config.absolute().parent
    run = RunDirectory(place)
    resumes = options.get("--run.resume", "").lower() == "true"
    if not resumes or config.name != run.config.name or not run.last_checkpoint.is_file():
        return []
    here = {"--run.root": str(place.parent), "--run.name": place.name}
    return [f"{name}={value}" for name, value in here.items() if name not in options]


def pretrain(cli: RunCLI, *, validate_first: bool = False) -> Path:
    """Train what `build` made; returns the run directory.

    One process writes to it at a time. What cannot be begun, or gone on with, leaves everything as
    it was.

    Args:
        cli: the run.
        validate_first: log the validation scores before the first step, too.

    Raises:
        HeadlessError: the run directory exists and neither resume nor overwrite was asked for; a
            run that goes on is not the one that this config describes, or another process trains
            it.
    """
    run, directory = cli.run, cli.run.directory
    with exclusive(directory.path) if _is_first_process() else nullcontext():
        path = directory.last_checkpoint if run.resume else None
        if path is None or not path.is_file():
            with _begin(cli, directory):
                _train(cli, directory, validate_first=validate_first)
            return directory.path
        checkpoint = read_own_checkpoint(path)
        step = int(checkpoint["global_step"])
        # On every rank: one that went on alone would wait for the others.
        found = changes(_config_before(cli, directory), yaml.safe_load(_config_text(cli)))
        parts = cli.trainer, cli.model, cli.datamodule
        changed = check_resume(directory, checkpoint, found, *parts)
        if is_finished(directory, checkpoint, cli.trainer, cli.datamodule):
            if _is_first_process():
                unused = ", ".join(str(change) for change in changed if change.is_used)
                print(
                    f"headless: {directory.path} is finished ({step} steps): train on with "
                    "--trainer.max_steps or --trainer.max_epochs"
                    + (f"; not used: {unused}" if unused else ""),
                    file=sys.stderr,
                )
            return directory.path
        del checkpoint
        with _begin(cli, directory, changed, step):
            _train(cli, directory, path)
    return directory.path


def _train(
    cli: RunCLI,
    directory: RunDirectory,
    checkpoint: Path | None = None,
    *,
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
            print(
                f"headless: stopped at step {cli.trainer.global_step}; go on from the last "
                f"checkpoint with: headless pretrain --config {directory.config} --run.resume true",
                file=sys.stderr,
            )
        raise KeyboardInterrupt from None


def _say_what_is_trained(cli: RunCLI) -> None:
    """The size, and what decided it: a width that is named decides more than itself."""
    config = cli.model.backbone_config
    count, embeddings = cli.model.num_parameters(), cli.model.embedding_VD.numel()
    print(
        f"headless: {config.family}: {count:,} parameters, {embeddings:,} of them token embeddings",
        file=sys.stderr,
    )
    _, derived = resolve(config)
    if derived:
        sizes = ", ".join(f"{name} {value}" for name, value in derived.items())
        print(
            f"headless: {sizes}: from the width, the heads and the blocks, in the ratios of "
            f"{config.preset or config.family}; set them in model.backbone.extra for others",
            file=sys.stderr,
        )
    warmup, steps = cli.model.schedule_config.warmup_steps, cli.trainer.max_steps
    if 0 < steps <= warmup:
        print(
            f"headless: the warm-up of {warmup} steps is as long as the run of {steps} or longer: "
            f"the rate comes to {steps / (warmup + 1):.0%} of model.optimizer.lr",
            file=sys.stderr,
        )


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _begin(
    cli: RunCLI, directory: RunDirectory, changed: Sequence[Change] = (), step: int = 0
) -> Iterator[None]:
    """The run directory for the training in the block; other ranks than the first need none."""
    if not _is_first_process():
        yield
        return
    text = _config_text(cli)

    def describe(run: RunDirectory) -> None:
        if changed:
            run.keep_config(step)
        run.write_config(text)
        environment = describe_environment()
        environment["precision"] = str(cli.trainer.precision)
        environment["devices"] = cli.trainer.world_size
        run.write_environment(environment)
        if step == 0:  # what an earlier start left may be of other data
            shutil.rmtree(run.tokenizer, ignore_errors=True)
        if not run.tokenizer.exists():
            shutil.copytree(cli.datamodule.dataset.tokenizer_path, run.tokenizer)

    with begin_run(
        directory,
        describe,
        resume=cli.run.resume,
        overwrite=cli.run.overwrite,
        step=step,
        made_a_step=lambda: cli.trainer.global_step > step,
    ):
        _say_what_is_trained(cli)
        if used := [str(change) for change in changed if change.is_used]:
            print(f"headless: from step {step} on: {', '.join(used)}", file=sys.stderr)
        for logger in cli.trainer.loggers:
            if isinstance(logger, TokenWandbLogger):
                logger.log_hyperparams(yaml.safe_load(text))
        yield


def _config_text(cli: RunCLI, config: Any = None) -> str:
    """A parsed config as a file that starts the same run again, by default the one of this run."""
    config = (cli.config if config is None else config).clone()
    config.run.resume = config.run.overwrite = False  # running it again is a new run
    config.pop("config", None)
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


def main(arguments: list[str]) -> None:
    """The command."""
    cli = build(arguments)
    path = pretrain(cli)
    if _is_first_process():
        masked = cli.model.task == "masked"
        mask_token = cli.datamodule.tokenizer.mask_token if masked else None
        print(closing(path, mask_token, needed_imports(cli.model.objective)))
        if caution := cli.datamodule.manifest.caution:
            print(f"headless: {caution}", file=sys.stderr)
