"""`headless validate`: the scores of a checkpoint on a validation split, printed as a table."""

import json
from pathlib import Path

from headless.cli.lightning import RunCLI
from headless.cli.pretrain import quiet_lightning
from headless.errors import HeadlessError
from headless.runs.directory import open_run
from headless.training.checkpoint_io import check_checkpoint
from headless.training.loading import find_checkpoint, run_of

USAGE = """usage: headless validate RUN_OR_CHECKPOINT [--data.path DIR] [--trainer.accelerator cpu]

Evaluates the last checkpoint of a run directory, or any checkpoint below one, on the validation
split of its data (or of --data.path: the same tokenizer). Any option of pretrain can follow.
Prints the objective's own loss and, under the LM head that the objective implies, nats,
perplexity, bits per byte and accuracy. Writes nothing."""

# However many devices the run was trained on.
ONE_DEVICE = (
    *("--trainer.num_nodes", "1", "--trainer.devices", "1"),
    *("--trainer.strategy", "auto"),
)


def validate(place: Path, options: list[str]) -> dict[str, float]:
    """Scores of a run's checkpoint; nothing is written.

    Args:
        place: a run directory, or a checkpoint in one.
        options: of `headless pretrain`, to change the data or the device.

    Raises:
        HeadlessError: no run, no checkpoint, or data made with another tokenizer.
    """
    checkpoint = find_checkpoint(place)
    check_checkpoint(checkpoint)
    run = open_run(place) if place.is_dir() else run_of(checkpoint)
    quiet_lightning()
    # A run is where it lies, whatever its config says of the place where it was trained.
    lies = run.path.absolute()
    here = ("--run.root", str(lies.parent), f"--run.name={lies.name}")
    cli = RunCLI(
        ["--config", str(run.config), *ONE_DEVICE, *options, "--run.wandb", "disabled", *here],
        prog="headless validate",
        enable_checkpointing=False,
    )
    cli.trainer.loggers = []  # they would add a point to the run's metrics
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
