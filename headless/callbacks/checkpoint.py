"""A run's `checkpoints/`: `last.ckpt`, whole at any moment, and the first weights."""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import save_file

from headless.callbacks.periodic import is_log_step, require_finite, switch_step_of
from headless.callbacks.progress import progress_of
from headless.runs.directory import RunDirectory

MOST_BYTES = 4 * 2**30  # of first weights: a third of such a model's checkpoint


class RunCheckpoint(Checkpoint):
    """Saves everything that a run needs to go on, every so many optimizer steps and at the end.

    Logs nothing. Where a validation is due at the same step the checkpoint waits for it, so that a
    run resumed from it has the validation's numbers behind it and none is lost. The weights before
    the first step are kept as `first.safetensors` where they are not above 4 GiB.

    Args:
        every_n_steps: optimizer steps between two checkpoints.
        keep: also keep each one as `step-00001000.ckpt` (a hard link where the disk has them);
            "log" also saves and keeps those of steps 1, 2, 3, 4, 6, 8, 12, … (two an octave), and
            of as many after a switch of the objective, for `headless analyze --steps all`.
    """

    def __init__(self, every_n_steps: int = 500, keep: bool | Literal["log"] = False) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.keep = keep
        self._saved_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the first weights, which `headless analyze` compares the trained ones with."""
        size = sum(p.numel() * p.element_size() for p in pl_module.parameters())
        if trainer.global_step == 0 and size <= MOST_BYTES:
            with progress_of(trainer).paused():
                weights = trainer.strategy.lightning_module_state_dict()  # every process takes part
                if trainer.is_global_zero:
                    path = _run_of(trainer).first_weights
                    save_file(weights, beside := path.with_name(f".{path.name}.partial"))
                    beside.chmod(path.parent.stat().st_mode & 0o666)  # as other files are made
                    os.replace(beside, path)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._due(trainer) and not getattr(trainer.fit_loop.epoch_loop, "must_validate", False):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._due(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved_step = checkpoint["global_step"]

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        wanted = step > 0 and step % self.every_n_steps == 0
        if self.keep == "log":
            wanted = wanted or is_log_step(step, switch_step_of(trainer.lightning_module))
        return wanted and step != self._saved_step

    def _save(self, trainer: Trainer) -> None:
        run = _run_of(trainer)
        with progress_of(trainer).paused():
            require_finite(trainer.lightning_module)  # the last good one is kept
            trainer.save_checkpoint(run.last_checkpoint)
            self._saved_step = trainer.global_step
            if self.keep and trainer.is_global_zero:
                _link(run.last_checkpoint, run.checkpoints / f"step-{self._saved_step:08d}.ckpt")


def _run_of(trainer: Trainer) -> RunDirectory:
    return RunDirectory(Path(trainer.default_root_dir))


def _link(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.partial")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, beside)
    os.replace(beside, target)
