"""Checkpoints: where they lie, read with their checksums, written whole or not at all."""

import inspect
import os
import pickle
import warnings
import zipfile
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from headless.errors import HeadlessError
from headless.files import whole_file
from headless.models.backbone import unfilled_weights
from headless.runs.directory import RunDirectory, open_run
from headless.training.imports import OPTION, denied

CHECKPOINT_KEY = "headless"  # where our own part of a checkpoint lies


def is_run(place: Path | str) -> bool:
    """Whether it is a run directory or a checkpoint file, and no Hugging Face model."""
    path = Path(place)
    return path.is_file() or (path.is_dir() and RunDirectory(path).config.is_file())


def find_checkpoint(place: Path | str) -> Path:
    """The checkpoint that is meant: a file itself, or the last one of a run directory."""
    path = Path(place)
    if path.is_file():
        return path
    if not path.exists():
        raise HeadlessError(f"there is no {path}: name a run directory or a checkpoint")
    last = open_run(path).last_checkpoint
    if not last.is_file():
        raise HeadlessError(f"{path} has no checkpoint yet: let it train longer")
    return last


def run_of(checkpoint: Path) -> RunDirectory:
    """The run directory that a checkpoint lies in."""
    # Where it lies, before where a link leads.
    for place in (checkpoint.absolute(), checkpoint.resolve()):
        run = RunDirectory(place.parent.parent)
        if run.config.is_file():
            return run
    raise HeadlessError(
        f"{checkpoint} is not in a run directory: it must lie in RUN/checkpoints, beside "
        "RUN/config.yaml and RUN/tokenizer"
    )


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint holds, mapped into memory; every value was compared with its checksum.

    A checkpoint is a zip archive: its directory has a CRC-32 of every tensor and of the structure
    around them. What no checksum covers, padding and times, is no value.

    Raises:
        HeadlessError: it is cut off, damaged, no checkpoint at all, or holds pickled objects.
    """
    damaged = HeadlessError(
        f"{path} is damaged or no checkpoint: take another one, or start anew with "
        "--run.overwrite true"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise damaged
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (FileNotFoundError, PermissionError, HeadlessError):
        raise
    except pickle.UnpicklingError as error:
        raise HeadlessError(
            f"{path} holds pickled objects, which could run any code when they are loaded: refused"
        ) from error
    except Exception as error:  # noqa: BLE001 - a damaged archive raises anything
        raise damaged from error


def read_own_checkpoint(path: Path) -> dict[str, Any]:
    """`read_checkpoint` of one that holds a run of this version."""
    content = read_checkpoint(path)
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise another_version(path)
    return content


@contextmanager
def mendable_errors(path: Path) -> Iterator[None]:
    """For what is made of a checkpoint: whatever does not fit is another version's."""
    try:
        yield
    except (ArgumentError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, ArgumentError) and (name := denied(error)):
            raise HeadlessError(
                f"{path} needs {name}: allow it with {OPTION} {name.split('.')[0]}"
            ) from error
        raise another_version(path) from error


def make_module(cls: Any, path: Path, checkpoint: dict[str, Any]) -> Any:
    """The module that a checkpoint of ours describes, with its weights, untrained since."""
    from lightning.pytorch.cli import instantiate_module

    known = inspect.signature(cls).parameters
    with mendable_errors(path):
        values = {k: v for k, v in checkpoint["hyper_parameters"].items() if k in known}
        with unfilled_weights(), warnings.catch_warnings():
            # The objective is a plain description in the checkpoint: the advice does not apply.
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
            module = instantiate_module(cls, values | {"compile": False})
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], assign=True)
    return module


def another_version(path: Path) -> HeadlessError:
    return HeadlessError(
        f"{path} is not a checkpoint of this version of headless: export it with the version that "
        "wrote it (RUN/environment.json names it)"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, flushes to the disk and renames: a kill or a full disk leaves the old file.

    Reads with `read_own_checkpoint`, unless it was `given` what the file holds.
    """

    given: dict[str, Any] | None = None

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        given, self.given = self.given, None
        return given or read_own_checkpoint(Path(path))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Serialise into the file, so that nothing of the checkpoint is in memory twice."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file:
            stream = _Stream(file)
            torch.save(checkpoint, stream)  # type: ignore[arg-type] # torch asks for no more
            if stream.error is not None:
                raise stream.error


class _Stream:
    """A file whose errors wait: torch makes an error of its own of one, or dies of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None  # the first one; nothing is written after it

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(memoryview(data).cast("B"))

    def flush(self) -> None:
        """The file is flushed when it is whole."""
