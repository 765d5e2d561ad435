"""`summary.json`: the headline numbers of a run, as its last report left them."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from headless.callbacks.memory import MemoryMonitor
from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.progress import progress_of
from headless.files import write_json
from headless.models.backbone import num_parameters
from headless.runs.directory import RunDirectory

LEFT_OUT = ("progress/", "analysis/")  # the summary's own, and hundreds that metrics.jsonl has


class RunSummary(Callback):
    """Writes `summary.json` after every validation and at the end.

    Logs nothing: it takes what the others logged, outside training time. `labels` of the run
    (name, group, tags) are written with them.
    """

    def __init__(self, **labels: Any) -> None:
        self.labels = labels
        self._wall_seconds = 0.0
        self._since = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"wall_seconds": self._wall()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._wall_seconds = state["wall_seconds"]
        self._since = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, pl_module, finished=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, finished=True)

    def _wall(self) -> float:
        """Seconds over all starts of the run."""
        return self._wall_seconds + time.monotonic() - self._since

    def _write(self, trainer: Trainer, pl_module: Any, finished: bool) -> None:
        if not trainer.is_global_zero:
            return
        with progress_of(trainer).paused():
            run = RunDirectory(Path(trainer.default_root_dir))
            write_json(run.summary, self._summary(trainer, pl_module, finished), sort_keys=True)

    def _summary(self, trainer: Trainer, pl_module: Any, finished: bool) -> dict[str, Any]:
        progress, seconds = progress_of(trainer), progress_of(trainer).seconds
        files = (logger for logger in trainer.loggers if isinstance(logger, MetricsFileLogger))
        logged = next((file.last for file in files), {})
        memory = next((c for c in trainer.callbacks if isinstance(c, MemoryMonitor)), None)  # type: ignore[attr-defined]
        config = pl_module.backbone.config
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data_facts = ("seed", "dataset_sha256", "tokenizer_sha256", "inexact_share", "anchors")
        return {
            **self.labels,
            "objective": pl_module.objective.describe(),
            "objective_class": type(pl_module.objective).__name__,
            "begins_from": pl_module.begins_from,
            "backbone": f"{config.model_type} {config.num_hidden_layers} x {config.hidden_size}",
            "parameters": num_parameters(pl_module),
            "vocab_size": pl_module.vocab_size,
            "hidden_size": pl_module.hidden_size,
            **{name: getattr(data, name, None) for name in data_facts},
            "steps": trainer.global_step,
            "tokens": progress.tokens,
            "seconds": seconds,
            "startup_seconds": progress.startup_seconds,
            "wall_seconds": self._wall(),
            "flops": progress.flops,
            "tokens_per_second": progress.timed_tokens / seconds if seconds else None,
            "peak_memory_gib": memory.peak_gib if memory else None,
            "peak_validation_memory_gib": memory.peak_validation_gib if memory else None,
            "memory_kind": memory.kind if memory else None,
            "finished": finished,
            "last": {k: v for k, v in logged.items() if not k.startswith(LEFT_OUT)},
        }
