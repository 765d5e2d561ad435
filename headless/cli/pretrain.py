"""`headless pretrain`: one config, one run."""

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.wandb_logger import TokenWandbLogger
from headless.cli.lightning import RunCLI
from headless.errors import HeadlessError
from headless.models.backbone import resolve
from headless.runs.directory import RunDirectory
from headless.runs.environment import describe_environment
from headless.training.checkpoint_io import check_checkpoint
from headless.training.imports import take_imports


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
    return RunCLI(take_imports(arguments), prog="headless pretrain")


def pretrain(cli: RunCLI, *, validate_first: bool = False) -> Path:
    """Train what `build` made; returns the run directory.

    Args:
        cli: the run.
        validate_first: log the validation scores before the first step, too.

    Raises:
        HeadlessError: the run directory exists and neither resume nor overwrite was asked for.
    """
    run, directory = cli.run, cli.run.directory
    checkpoint = _checkpoint_to_resume(directory) if run.resume else None
    if _is_first_process():
        RunDirectory.create(directory.path, resume=run.resume, overwrite=run.overwrite)
        if checkpoint is None:
            directory.metrics.unlink(missing_ok=True)
            directory.samples.unlink(missing_ok=True)
        _describe(cli, directory)
        _say_what_is_trained(cli)
    if validate_first and checkpoint is None:
        cli.trainer.validate_loop.inference_mode = False  # its sums are updated in training too
        cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not cli.trainer.interrupted:
            raise
        print(
            f"headless: stopped at step {cli.trainer.global_step}; go on from the last checkpoint "
            f"with: headless pretrain --config {directory.config} --run.resume true",
            file=sys.stderr,
        )
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            raise HeadlessError(
                f"{checkpoint} holds another model than this config describes: "
                f"resume with {directory.config}"
            ) from error
        raise
    return directory.path


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


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _checkpoint_to_resume(directory: RunDirectory) -> Path | None:
    path = directory.last_checkpoint
    if not path.is_file():
        return None
    check_checkpoint(path)
    return path


def _describe(cli: RunCLI, directory: RunDirectory) -> None:
    """What a run is, written before it starts: config, environment, tokenizer; W&B gets it too."""
    config = cli.config.clone()
    config.run.resume = config.run.overwrite = False  # running it again is a new run
    config.pop("config", None)
    text = cli.parser.dump(config, skip_none=False, skip_link_targets=True)
    if directory.config.is_file() and directory.config.read_text() != text:
        shutil.copyfile(directory.config, directory.path / "config.previous.yaml")
    directory.write_config(text)
    environment = describe_environment()
    environment["precision"] = str(cli.trainer.precision)
    environment["devices"] = cli.trainer.world_size
    directory.write_environment(environment)
    if not directory.tokenizer.exists():
        shutil.copytree(cli.datamodule.dataset.tokenizer_path, directory.tokenizer)
    for logger in cli.trainer.loggers:
        if isinstance(logger, TokenWandbLogger):
            logger.log_hyperparams(yaml.safe_load(text))


def main(arguments: list[str]) -> None:
    """The command."""
    cli = build(arguments)
    path = pretrain(cli)
    if _is_first_process():
        print(f"run directory: {path}")
        if caution := cli.datamodule.manifest.caution:
            print(f"headless: {caution}", file=sys.stderr)
