"""`metrics.jsonl` as a Lightning logger: what any part of a run logs becomes a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.progress import ProgressMonitor
from headless.runs.directory import RunDirectory
from headless.runs.metrics import TOKENS, append_point, truncate_metrics


def with_progress(
    metrics: Mapping[str, Any], progress: ProgressMonitor | None, step: int | None
) -> dict[str, Any]:
    """A point: metrics beside the run's progress, exact (Lightning's own values are float32).

    Lightning's `epoch` becomes `progress/epoch`.
    """
    point = dict(metrics)
    if "epoch" in point:
        point["progress/epoch"] = int(point.pop("epoch"))
    point |= progress.point() if progress is not None else {"progress/step": step}
    return point


class MetricsFileLogger(Logger):
    """Writes every logged point into the run directory.

    Args:
        directory: of the run.

    Attributes:
        progress: how far the run is; set by the ProgressMonitor.
        repeated: points (tokens, names) that a resumed run logs again, for mirrors of the file.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._run = RunDirectory(Path(directory))
        self.progress: ProgressMonitor | None = None
        self.repeated: set[tuple[int, frozenset[str]]] = set()

    @property
    def name(self) -> str:
        """Of the run."""
        return self._run.path.name

    @property
    def version(self) -> str:
        """A run directory has no versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._run.path)

    @rank_zero_only
    def begin(self, tokens: int) -> None:
        """Training begins, or goes on, after so many tokens: drop the points behind them."""
        dropped = truncate_metrics(self._run.metrics, tokens)
        self.repeated = {point_identity(point) for point in dropped}

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        append_point(self._run.metrics, with_progress(metrics, self.progress, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory holds the config itself."""


def point_identity(point: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    """What makes two points the same one: when, and of what."""
    return int(point.get(TOKENS, -1)), frozenset(point)
