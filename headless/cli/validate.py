"""`headless validate`: the scores of a checkpoint on a validation split, printed as a table."""

import json
from pathlib import Path

from headless.cli.lightning import RunCLI
from headless.cli.pretrain import quiet_lightning
from headless.errors import HeadlessError
from headless.runs.directory import open_run
from headless.training.checkpoint_io import check_checkpoint

USAGE = """usage: headless validate RUN_OR_CHECKPOINT [--data.path DIR] [--trainer.accelerator cpu]

Evaluates the last checkpoint of a run directory, or any checkpoint below one, on the validation
split of its data (or of --data.path: the same tokenizer). Any option of pretrain can follow.
Prints the objective's own loss and, under the LM head that the objective implies, nats,
perplexity, bits per byte and accuracy."""

# However many devices the run was trained on.
ONE_DEVICE = (
    *("--trainer.num_nodes", "1", "--trainer.devices", "1"),
    *("--trainer.strategy", "auto"),
)


def validate(place: Path, options: list[str]) -> dict[str, float]:
    """Scores of a run's checkpoint.

    Args:
        place: a run directory, or a checkpoint in one.
        options: of `headless pretrain`, to change the data or the device.

    Raises:
        HeadlessError: no run, no checkpoint, or data made with another tokenizer.
    """
    run = open_run(place if place.is_dir() else place.parent.parent)
    checkpoint = place if place.is_file() else run.last_checkpoint
    if not checkpoint.is_file():
        raise HeadlessError(f"{run.path} has no checkpoint yet: let it train longer")
    check_checkpoint(checkpoint)
    quiet_lightning()
    cli = RunCLI(
        ["--config", str(run.config), *ONE_DEVICE, *options, "--run.wandb", "disabled"],
        prog="headless validate",
        logger=False,
        enable_checkpointing=False,
    )
    (scores,) = cli.trainer.validate(
        cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False
    )
    return {name: value for name, value in scores.items() if name.startswith("val/")}


def main(arguments: list[str]) -> None:
    """The command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if not arguments:
            raise HeadlessError("name a run directory or a checkpoint")
        return
    if arguments[0].startswith("--"):
        raise HeadlessError("the run directory or checkpoint comes first: headless validate RUN …")
    place = Path(arguments[0])
    if not place.exists():
        raise HeadlessError(f"there is no {place}: name a run directory or a checkpoint")
    print(json.dumps(validate(place, arguments[1:]), indent=2, sort_keys=True))
