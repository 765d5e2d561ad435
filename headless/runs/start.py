"""The beginning of a run in its directory, which is as it was before where no step is made."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headless.files import move_aside, renamable, write_bytes
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics

Describe = Callable[[RunDirectory], None]


@contextmanager
def begin_run(
    run: RunDirectory,
    describe: Describe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    step: int = 0,
    made_a_step: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Make the directory, or with `resume` use the one that exists, for the block that trains.

    A new one is made beside and renamed. What `overwrite` replaces is moved aside to
    `<name>.old-<n>`, never deleted. Where the block ends with an error before the first step, all
    is put back.

    Args:
        describe: writes what the run is.
        step: of the checkpoint that it goes on from; without one it logs all points again.
        made_a_step: besides the directory's word: some strategies train in other processes.
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
        if not made_a_step() and not _has_trained(run, step, before):
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
