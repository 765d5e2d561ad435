"""Weights & Biases as a mirror of `metrics.jsonl`: curves over tokens, whole after any resume."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.metrics_file import MetricsFileLogger
from headless.callbacks.wandb_files import points_on_disk
from headless.files import write_text
from headless.runs.directory import RunDirectory
from headless.runs.metrics import TOKENS, append_point, read_metrics

AXES = ("progress/tokens", "progress/seconds", "progress/flops", "progress/step")
BEST = {
    "train/loss": "min",
    "val/loss": "min",
    "val/nll": "min",
    "val/perplexity": "min",
    "val/bits_per_byte": "min",
    "val/accuracy": "max",
}


class SentPoints:
    """What a run has given to W&B, a line for each point, over all processes of the run.

    A killed process may have sent points that lie behind the checkpoint from which the next one
    goes on, and that one may be killed before it reaches them: `metrics.jsonl`, which is cut back
    at each resume, does not know them any more.

    Args:
        path: of the list.
        arrived: how many of the points W&B has; it loses the last ones when it is killed.
    """

    def __init__(self, path: Path, arrived: int) -> None:
        self._path = path
        lines = read_metrics(path)[:arrived]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
        self.count = len(lines)
        self._tokens = lines[-1][TOKENS] if lines else -1
        self._keys = {line["keys"] for line in lines if line[TOKENS] == self._tokens}

    def is_new(self, point: Mapping[str, Any]) -> bool:
        """Whether a curve with this point neither goes back nor holds it twice."""
        if point[TOKENS] == self._tokens:
            return _names(point) not in self._keys
        return point[TOKENS] > self._tokens

    def add(self, point: Mapping[str, Any]) -> None:
        """Remember a point that was sent."""
        if point[TOKENS] != self._tokens:
            self._tokens, self._keys = point[TOKENS], set()
        self._keys.add(_names(point))
        self.count += 1
        append_point(self._path, {TOKENS: point[TOKENS], "keys": _names(point)})


def _names(point: Mapping[str, Any]) -> str:
    return hashlib.sha256("\n".join(sorted(point)).encode()).hexdigest()[:8]


class TokenWandbLogger(WandbLogger):
    """Lightning's W&B logger with other x-axes and without its losses.

    Lightning plots over `trainer/global_step`, which jumps at validation; here every point carries
    its own tokens and seconds, and W&B draws over tokens. A resumed run continues the same W&B
    run; points that it logs for the second time are not sent for the second time, so curves stay
    monotone over tokens and hold every point once. W&B's own step counts on over resumes, too:
    a server drops what comes with a step that it has seen.

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
        self._run_directory = RunDirectory(Path(directory))
        self._files = Path(directory) / "wandb"
        self._metrics_file = metrics_file
        self._sent: SentPoints | None = None
        self._begin_at: int | None = None
        super().__init__(
            name=name,
            save_dir=str(directory),
            project=project,
            group=group,
            tags=list(tags),
            mode=mode,
            # Without a network nothing can be asked about the run: W&B would only warn.
            resume="allow" if mode == "online" else None,
        )
        del self._wandb_init["anonymous"]  # W&B warns of it, whatever its value

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at first use under the id that the run directory holds."""
        if self._experiment is None:
            import wandb

            self._files.mkdir(parents=True, exist_ok=True)
            self._id = self._wandb_init["id"] = self._run_id()
            arrived = points_on_disk(self._files)
            # A run of its own even where another one is open, as in a notebook.
            settings = wandb.Settings(silent=True, console="off", reinit="create_new")
            self._experiment = run = wandb.init(**self._wandb_init, settings=settings)
            if self._wandb_init["mode"] == "online":
                arrived = run.starting_step  # the server knows better
            self._sent = SentPoints(self._files / "sent.jsonl", arrived)
            self._begin_at = max(self._sent.count, run.starting_step) or None
            for axis in AXES:
                run.define_metric(axis)
            run.define_metric("*", step_metric=TOKENS, step_sync=False)
            for metric, best in BEST.items():
                run.define_metric(
                    metric, step_metric=TOKENS, step_sync=False, summary=f"{best},last"
                )
        return self._experiment

    def _run_id(self) -> str:
        path = self._files / "run-id"
        if not path.is_file():
            write_text(path, secrets.token_hex(4))
        return path.read_text().strip()

    @rank_zero_only
    def begin(self, tokens: int) -> None:
        """Training begins, or goes on: start W&B before the clock runs, and give it what it lost.

        That is what it had in memory when it was killed, or all where it was not used before.
        """
        for point in read_metrics(self._run_directory.metrics):
            if point.get(TOKENS, tokens + 1) <= tokens:
                self._send(point)
        _ = self.experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send a point, unless an earlier process of this run has sent it."""
        self._send(self._metrics_file.point(metrics, step))

    def _send(self, point: dict[str, Any]) -> None:
        run = self.experiment
        assert self._sent is not None
        if TOKENS not in point:  # outside of training: W&B itself has to order it
            run.log(point)
            return
        if not self._sent.is_new(point):
            return
        # The first point says where W&B's own step goes on; W&B counts from there.
        run.log(point, step=self._begin_at, commit=True)
        self._begin_at = None
        self._sent.add(point)

    @rank_zero_only
    def log_samples(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Send continuations as a table."""
        import wandb

        rows = [list(row) for row in zip(prompts, texts, strict=True)]
        self.log_metrics({"samples": wandb.Table(columns=["prompt", "text"], data=rows)})

    @rank_zero_only
    def log_analysis(
        self,
        pictures: Mapping[str, Path],
        histograms: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Send pictures, moving ones (GIF) and histograms as one point.

        Args:
            pictures: image files by key.
            histograms: counts [K] and edges [K + 1] by key, K at most 512.
        """
        import wandb

        media: dict[str, Any] = {
            key: wandb.Video(str(path), format="gif")
            if path.suffix == ".gif"
            else wandb.Image(str(path))
            for key, path in pictures.items()
        }
        media |= {key: wandb.Histogram(np_histogram=pair) for key, pair in histograms.items()}
        if media:
            self.log_metrics(media)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run, so that the next one of this process is another one."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=1 if status == "failed" else 0)
            if self._wandb_init["mode"] == "offline":
                self._wait_for_files()
            self._experiment = self._sent = None

    def _wait_for_files(self, seconds: float = 10.0) -> None:
        """W&B's process closes its file a moment after `finish` has returned."""
        assert self._sent is not None
        pause = 0.002
        while points_on_disk(self._files) < self._sent.count and pause < seconds:
            time.sleep(pause)
            pause *= 2
