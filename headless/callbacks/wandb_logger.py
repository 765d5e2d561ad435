"""Weights & Biases as a mirror of `metrics.jsonl`: curves over tokens, whole after any resume."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.metrics_file import MetricsFileLogger, point_identity, with_progress
from headless.callbacks.progress import ProgressMonitor

BEST = {"val/nll": "min", "val/bits_per_byte": "min", "val/accuracy": "max"}


class TokenWandbLogger(WandbLogger):
    """Lightning's W&B logger with other x-axes and without its losses.

    Lightning plots over `trainer/global_step`, which jumps at validation; here every point carries
    its own tokens and seconds, and W&B draws over tokens. A resumed run continues the same W&B
    run; points that it logs for the second time are not sent for the second time, so curves stay
    monotone over tokens and hold every point once.

    Args:
        directory: of the run; W&B's files lie in `wandb/` there.
        metrics_file: the logger that this one mirrors.
        name: of the run.
        project: of W&B.
        group: runs that belong together.
        tags: words to filter by.
        mode: "offline" needs no account (`wandb sync` uploads later), "online" does.
    """

    def __init__(
        self,
        directory: Path,
        metrics_file: MetricsFileLogger,
        name: str,
        project: str = "headless",
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "offline",
    ) -> None:
        self._directory = Path(directory)
        self._metrics_file = metrics_file
        self.progress: ProgressMonitor | None = None
        super().__init__(
            name=name,
            save_dir=str(directory),
            project=project,
            group=group,
            tags=list(tags),
            offline=mode == "offline",
            log_model=False,
            resume="allow",
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at first use under the id that the run directory holds."""
        if self._experiment is None:
            import wandb

            self._wandb_init["id"] = self._id = self._run_id()
            self._wandb_init["settings"] = wandb.Settings(silent=True, console="off")
            run = super().experiment
            for axis in ("progress/tokens", "progress/seconds", "progress/flops", "progress/step"):
                run.define_metric(axis)
            run.define_metric("*", step_metric="progress/tokens", step_sync=False)
            for metric, best in BEST.items():
                run.define_metric(
                    metric, step_metric="progress/tokens", step_sync=False, summary=f"{best},last"
                )
        return self._experiment

    def _run_id(self) -> str:
        path = self._directory / "wandb" / "run-id"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(secrets.token_hex(4))
        return path.read_text().strip()

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Send a point, unless the run had sent it before it was resumed."""
        point = with_progress(metrics, self.progress, step)
        if point_identity(point) not in self._metrics_file.repeated:
            self.experiment.log(point)

    @rank_zero_only
    def log_samples(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Send continuations as a table."""
        import wandb

        table = wandb.Table(
            columns=["prompt", "text"], data=[list(row) for row in zip(prompts, texts, strict=True)]
        )
        self.experiment.log({"samples": table, **(self.progress.point() if self.progress else {})})
