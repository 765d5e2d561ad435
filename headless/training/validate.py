"""The scores of a checkpoint on a validation split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headless.isolation import isolated
from headless.progress import Display, Report
from headless.runs.directory import open_run
from headless.training.assembly import RunCLI, arguments_of, quiet_lightning
from headless.training.checkpoint_io import find_checkpoint, run_of

ONE_DEVICE = {  # however many the run was trained on
    "trainer.num_nodes": 1,
    "trainer.devices": 1,
    "trainer.strategy": "auto",
}


@isolated()
def validate(
    place: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    progress: bool | Report = False,
) -> dict[str, float]:
    """The scores of a checkpoint on a validation split; nothing is written.

    Args:
        place: a run directory (its last checkpoint), or a checkpoint in one.
        overrides: settings of `pretrain` to change the data or the device:
            `{"data.path": "data/other"}`, made with the same tokenizer.
        progress: show it, or a function that gets (phase, done, in all).

    Returns:
        The objective's own loss and, under the LM head that it implies, nats (also by frequency
        decile), perplexity, bits per byte and accuracy, named as in the logs: `val/nll`.
    """
    checkpoint = find_checkpoint(place)
    run = open_run(place) if Path(place).is_dir() else run_of(checkpoint)
    # A run is where it lies, whatever its config says of the place where it was trained.
    path = run.path.absolute()
    location = {"run.wandb": "disabled", "run.root": path.parent, "run.name": path.name}
    quiet_lightning()
    with Display(progress) as display:
        cli = RunCLI(
            arguments_of(run.config, ONE_DEVICE | dict(overrides or {}) | location),
            "headless validate",
            display=display,
            enable_checkpointing=False,
        )
        cli.trainer.loggers = []  # they would add a point to the run's metrics
        (scores,) = cli.trainer.validate(
            cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False
        )
    return {name: value for name, value in scores.items() if name.startswith("val/")}
