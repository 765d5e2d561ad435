"""`metrics.jsonl` as a Lightning logger: what any part of a run logs becomes a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.progress import ProgressMonitor
from headless.files import finite
from headless.runs.directory import RunDirectory
from headless.runs.metrics import append_point, read_metrics, truncate_metrics


class MetricsFileLogger(Logger):
    """Writes every logged point into the run directory."""

    version = ""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._run = RunDirectory(Path(directory))
        self.progress: ProgressMonitor | None = None  # which sets itself here
        self._last: dict[str, Any] | None = None

    @property
    def last(self) -> dict[str, Any]:
        """The last value of every key; the file is read once."""
        if self._last is None:
            self._last = {}
            for point in read_metrics(self._run.metrics):
                self._last.update(point)
        return self._last

    @property
    def name(self) -> str:
        return self._run.path.name

    @property
    def save_dir(self) -> str:
        return str(self._run.path)

    @rank_zero_only
    def begin(self, tokens: int) -> None:
        """Training begins, or goes on, after so many tokens: drop the points behind them."""
        truncate_metrics(self._run.metrics, tokens)
        self._last = None

    def point(self, metrics: Mapping[str, Any], step: int | None = None) -> dict[str, Any]:
        """Metrics beside the run's progress, exact (Lightning's own values are float32).

        Lightning adds `epoch`, which becomes `progress/epoch`, unless a metric is called `step`:
        that one it takes away to use as its x-axis. It is put back.
        """
        point = dict(metrics)
        if "epoch" in point:
            point["progress/epoch"] = int(point.pop("epoch"))
        elif step is not None and self.progress is not None:
            point["step"] = step
        return point | (self.progress.point() if self.progress else {"progress/step": step})

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        point = self.point(metrics, step)
        append_point(self._run.metrics, point)
        if self._last is not None:
            self._last.update(finite(point))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run directory holds the config itself."""
