"""Weights & Biases as a mirror of `metrics.jsonl`: curves over tokens, whole after any resume."""

import hashlib
import secrets
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from headless.callbacks.metrics_file import MetricsFileLogger
from headless.files import json_lines, write_text
from headless.runs.directory import RunDirectory
from headless.runs.metrics import TOKENS, append_point, read_metrics

AXES = ("progress/tokens", "progress/seconds", "progress/flops", "progress/step")
LOWEST = ("train/loss", "val/loss", "val/nll", "val/perplexity", "val/bits_per_byte")
BEST = {**dict.fromkeys(LOWEST, "min"), "val/accuracy": "max"}
# Of the hundreds of numbers of the laboratory; metrics.jsonl has the others.
HEADLINES = {
    f"analysis/{name}"
    for name in (
        *("table_spectra/embedding/first_share", "table_spectra/embedding/effective_rank"),
        *("table_spectra/head/first_share", "table_spectra/head/effective_rank"),
        *("anisotropy/embedding", "anisotropy/norm_f", "covariance_spectra/norm_f/entropy_rank"),
        *("alignment_uniformity/next_token", "activations/norm_f/kurtosis/median_dimension"),
        *("norms/first_over_rest", "norms/growth"),
        *("weight_movement/q/distance", "weight_movement/down/distance"),
        *("unigram/norm_f/r2", "unigram/norm_f/slope", "ngrams/unigram/divergence"),
        "bottleneck/full/lost",
    )
}
PICTURES = ("analysis/figures/", "analysis/histograms/")
# Of W&B's files.
BLOCK, HEADER = 32768, struct.Struct("<IHB")
WHOLE, LAST = 1, 4  # kinds of a record's part


def is_shown(key: str) -> bool:
    """Whether W&B gets what a point has under this key."""
    return not key.startswith("analysis/") or key in HEADLINES or key.startswith(PICTURES)


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
        write_text(path, json_lines(lines))
        self.count = len(lines)
        self._tokens = lines[-1][TOKENS] if lines else -1
        self._keys = {line["keys"] for line in lines if line[TOKENS] == self._tokens}

    def is_new(self, point: Mapping[str, Any]) -> bool:
        """Whether a curve with this point is still monotone and holds it once."""
        if point[TOKENS] == self._tokens:
            return _digest(point) not in self._keys
        return point[TOKENS] > self._tokens

    def add(self, point: Mapping[str, Any]) -> None:
        if point[TOKENS] != self._tokens:
            self._tokens, self._keys = point[TOKENS], set()
        self._keys.add(_digest(point))
        self.count += 1
        append_point(self._path, {TOKENS: point[TOKENS], "keys": _digest(point)})


def _digest(point: Mapping[str, Any]) -> str:
    """Of its keys: points of the same tokens differ in them."""
    return hashlib.sha256("\n".join(sorted(point)).encode()).hexdigest()[:8]


class TokenWandbLogger(Logger):
    """W&B with other x-axes than Lightning's logger, and without its losses.

    Lightning plots over `trainer/global_step`, which jumps at validation; here every point carries
    its own tokens and seconds, and W&B draws over tokens. A resumed run continues the same W&B
    run; points that it logs for the second time are not sent for the second time, so curves stay
    monotone over tokens and hold every point once. W&B's own step counts on over resumes, too:
    a server drops what comes with a step that it has seen.

    Args:
        directory: of the run; W&B's files lie in `wandb/` there.
        metrics_file: the logger that this one mirrors.
        mode: "offline" needs no account (`wandb sync` uploads later), "online" does.
        **options: of `wandb.init`: name, project, group, tags, ...
    """

    version = ""

    def __init__(
        self,
        directory: Path,
        metrics_file: MetricsFileLogger,
        mode: Literal["offline", "online"] = "offline",
        **options: Any,
    ) -> None:
        super().__init__()
        self._run = RunDirectory(Path(directory))
        self._metrics_file = metrics_file
        self._mode = mode
        self._options = options
        self._wandb_run: Any = None
        self._sent: SentPoints | None = None
        self._begin_at: int | None = None

    @property
    def name(self) -> str:
        return self._run.path.name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at first use under the id that the run directory holds."""
        if self._wandb_run is None:
            import wandb

            files = self._run.wandb
            files.mkdir(parents=True, exist_ok=True)
            if not (files / "run-id").is_file():
                write_text(files / "run-id", secrets.token_hex(4))
            arrived = points_on_disk(files)
            online = self._mode == "online"
            self._wandb_run = run = wandb.init(
                dir=str(self._run.path),
                id=(files / "run-id").read_text().strip(),
                mode=self._mode,
                # Without a network nothing can be asked about the run: W&B would only warn.
                resume="allow" if online else None,
                # A run of its own even where another one is open, as in a notebook.
                settings=wandb.Settings(silent=True, console="off", reinit="create_new"),
                **self._options,
            )
            if online:
                arrived = run.starting_step  # the server knows better
            self._sent = SentPoints(files / "sent.jsonl", arrived)
            self._begin_at = max(self._sent.count, run.starting_step) or None
            for axis in AXES:
                run.define_metric(axis)
            run.define_metric("*", step_metric=TOKENS, step_sync=False)
            for metric, best in BEST.items():
                run.define_metric(
                    metric, step_metric=TOKENS, step_sync=False, summary=f"{best},last"
                )
        return self._wandb_run

    @rank_zero_only
    def begin(self, tokens: int) -> None:
        """Training begins, or goes on: start W&B before the clock runs, and give it what it lost.

        That is what it had in memory when it was killed, or all where it was not used before.
        """
        for point in read_metrics(self._run.metrics):
            if point.get(TOKENS, tokens + 1) <= tokens:
                self._send(point)
        _ = self.experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(dict(params), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._send(self._metrics_file.point(metrics, step))

    def _send(self, point: dict[str, Any]) -> None:
        run, point = self.experiment, {k: v for k, v in point.items() if is_shown(k)}
        assert self._sent is not None
        if TOKENS not in point:  # outside of training: W&B itself has to order it
            run.log(point)
        elif self._sent.is_new(point):
            # The first point says where W&B's own step goes on; W&B counts from there.
            run.log(point, step=self._begin_at, commit=True)
            self._begin_at = None
            self._sent.add(point)

    @rank_zero_only
    def log_samples(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
        import wandb

        rows = [list(row) for row in zip(prompts, texts, strict=True)]
        self.log_metrics({"samples": wandb.Table(columns=["prompt", "text"], data=rows)})

    @rank_zero_only
    def log_analysis(
        self,
        pictures: Mapping[str, Path],
        histograms: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Send pictures (a GIF where it moves) and histograms as one point.

        A histogram is counts [K] and edges [K + 1], K at most 512.
        """
        import wandb

        media: dict[str, Any] = {}
        for key, path in pictures.items():
            moves = path.suffix == ".gif"
            media[key] = wandb.Video(str(path), format="gif") if moves else wandb.Image(str(path))
        for key, counts_and_edges in histograms.items():
            media[key] = wandb.Histogram(np_histogram=counts_and_edges)
        if media:
            self.log_metrics(media)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run, so that the next one of this process is another one."""
        if self._wandb_run is not None:
            self._wandb_run.finish(exit_code=1 if status == "failed" else 0)
            if self._mode == "offline":
                self._wait_for_files()
            self._wandb_run = self._sent = None

    def _wait_for_files(self) -> None:
        """W&B's process closes its file a moment after `finish` has returned."""
        assert self._sent is not None
        pause = 0.002
        while points_on_disk(self._run.wandb) < self._sent.count and pause < 10.0:
            time.sleep(pause)
            pause *= 2


def records(path: Path) -> Iterator[Any]:
    """The whole records of one of W&B's files as its protocol buffers.

    They are LevelDB logs: blocks of 32 KiB; each record in one or more parts, each part behind a
    header of checksum, length and kind; W&B puts 7 bytes of its own before the first. A killed
    process leaves out up to a block of its last records.
    """
    from wandb.proto import wandb_internal_pb2 as protocol

    data, parts = path.read_bytes(), b""
    if data[:4] != b":W&B":
        return
    at = HEADER.size
    while at + HEADER.size <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER.size:
            at += room  # too little for a header: padding
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        if at + length > len(data):
            return
        parts += data[at : at + length]
        at += length
        if kind in (WHOLE, LAST):
            yield protocol.Record.FromString(parts)  # type: ignore[attr-defined]
            parts = b""


def points_on_disk(directory: Path) -> int:
    """How many points W&B's files in a directory hold, over all processes of the run."""
    files = directory.glob("*run-*/run-*.wandb")
    points = (r for path in files for r in records(path) if r.HasField("history"))
    return max((record.history.step.num + 1 for record in points), default=0)
