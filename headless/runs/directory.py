"""A run directory: every file of a run, named in one place, written whole or not at all.

It is begun in one step, and is as it was before where no step of training is made.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.files import move_aside, renamable, write_bytes, write_text
from headless.runs.metrics import read_metrics
from headless.structured import read_json, read_yaml


class _Entry:
    """A name in the directory; read of a run it is a path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "RunDirectory", owner: object = None) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run below `path`."""

    path: Path

    config = _Entry("config.yaml")  # resolved: `headless pretrain --config` on it starts it again
    environment = _Entry("environment.json")  # versions, device, commit and command
    metrics = _Entry("metrics.jsonl")  # every logged point
    samples = _Entry("samples.jsonl")  # texts that the model wrote while it was trained
    evaluations = _Entry("evaluations.jsonl")  # what the model scored on tasks, a result a line
    analysis = _Entry("analysis")  # of `headless analyze`: a directory with a page and its numbers
    summary = _Entry("summary.json")  # the headline numbers, since the first validation
    checkpoints = _Entry("checkpoints")
    last_checkpoint = _Entry("checkpoints/last.ckpt")  # the one to go on from
    first_weights = _Entry("checkpoints/first.safetensors")  # before the first step
    tokenizer = _Entry("tokenizer")  # that made the data
    wandb = _Entry("wandb")  # what `wandb sync` uploads

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def is_run(self) -> bool:
        files = (self.config, self.metrics, self.summary, self.last_checkpoint)
        return any(file.is_file() for file in files)

    def check_place(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse a place that holds what was not to be used, or no run."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise HeadlessError(f"{path} is a file: give another --run.name or --run.root")
        if not path.exists() or not any(path.iterdir()):
            return
        if not (resume or overwrite):
            raise HeadlessError(
                f"{path} exists: go on with --run.resume true, give another --run.name, or "
                "start anew with --run.overwrite true (the old one is moved aside)"
            )
        if not self.is_run:
            raise HeadlessError(
                f"{path} is no run (it has no {self.config.name}), so it stays as it is: give "
                "another --run.name or --run.root"
            )

    def read_config(self) -> dict[str, Any]:
        return read_yaml(self.config)

    def keep_config(self, step: int) -> None:
        """Keep the config with which the run came to a step, before another is written: of several
        starts from one step, what the first one finds was used."""
        kept = self.path / f"config.until-step-{step}.yaml"
        if self.config.is_file() and not kept.exists():
            write_text(kept, self.config.read_text(encoding="utf-8"))

    def earlier_configs(self) -> list[Path]:
        """The configs with which the run came to a step and then went on with others."""
        return sorted(self.path.glob("config.until-step-*.yaml"))

    def read_environment(self) -> dict[str, Any]:
        return _read_json(self.environment)

    def read_summary(self) -> dict[str, Any]:
        return _read_json(self.summary)


def check_name(name: str) -> str:
    """Refuse a name of a run that would be another place, a hidden one, or an option."""
    if not name or name[0] in ".-" or not name.isprintable() or {"/", "\\"} & set(name):
        raise HeadlessError(
            f"run.name must be a plain name of a directory below run.root, got {name!r}: no / or "
            "\\ in it, nothing that cannot be printed, and no . or - at its beginning"
        )
    return name


def open_run(path: Path | str) -> RunDirectory:
    """An existing run."""
    run = RunDirectory(Path(path))
    if not run.config.is_file():
        raise HeadlessError(
            f"{run.path} is not a run directory (no {run.config.name}): headless pretrain makes one"
        )
    return run


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}


# -- its beginning ----------------------------------------------------------------------------

Describe = Callable[[RunDirectory], None]


@contextmanager
def begin_run(
    run: RunDirectory,
    describe: Describe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    step: int = 0,
) -> Iterator[None]:
    """Make the directory, or with `resume` use the one that exists, for the block that trains.

    A new one is made beside and renamed. What `overwrite` replaces is moved aside to
    `<name>.old-<n>`, never deleted. Where the block ends with an error before the first step, all
    is put back.

    Args:
        describe: writes what the run is.
        step: of the checkpoint that it goes on from; without one it logs all points again.
    """
    run.check_place(resume=resume, overwrite=overwrite)
    if resume and run.is_run:
        undo = _reuse(run, describe, keep_points=step > 0)
    else:
        undo = _create(run, describe)
    before = _write_times(run)
    try:
        yield
    except BaseException:
        if not _has_trained(run, step, before):
            undo()
        raise


def _write_times(run: RunDirectory) -> list[tuple[int, int] | None]:
    """Inode and time of the last checkpoint and of the metrics: others after each write."""
    files = (run.last_checkpoint, run.metrics)
    stats = (file.stat() if file.is_file() else None for file in files)
    return [stat and (stat.st_ino, stat.st_mtime_ns) for stat in stats]


def _has_trained(run: RunDirectory, step: int, before: list[tuple[int, int] | None]) -> bool:
    """Whether there is a new checkpoint, or a new point of a later step."""
    checkpoint, points = _write_times(run)
    if checkpoint != before[0]:
        return True
    return points != before[1] and any(
        point.get("progress/step", 0) > step for point in read_metrics(run.metrics)
    )


def _reuse(run: RunDirectory, describe: Describe, *, keep_points: bool) -> Callable[[], None]:
    files = (run.config, run.environment, run.metrics, run.samples)
    before = {file: file.read_bytes() if file.is_file() else None for file in files}
    entries = set(run.path.iterdir())

    def undo() -> None:
        for file, data in before.items():
            if data is None:
                file.unlink(missing_ok=True)
            elif not file.is_file() or file.read_bytes() != data:
                write_bytes(file, data)
        others = {run.evaluations, run.analysis}  # what other commands may have made meanwhile
        for new in set(run.path.iterdir()) - entries - others:
            if new.name.startswith("."):  # their locks
                continue
            shutil.rmtree(new, ignore_errors=True) if new.is_dir() else new.unlink()

    try:
        if not keep_points:
            run.metrics.unlink(missing_ok=True)
            run.samples.unlink(missing_ok=True)
        run.checkpoints.mkdir(exist_ok=True)
        describe(run)
    except BaseException:
        undo()
        raise
    return undo


def _create(run: RunDirectory, describe: Describe) -> Callable[[], None]:
    path = renamable(run.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = RunDirectory(path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}"))
    try:
        partial.checkpoints.mkdir(parents=True)
        describe(partial)
        old = move_aside(path) if run.is_run else None
        os.replace(partial.path, path)
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)

    def undo() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if old is not None:
            os.replace(old, path)

    return undo
