"""A trained module from a run directory or a checkpoint."""

import warnings
from argparse import ArgumentError
from pathlib import Path

from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory, open_run
from headless.training.checkpoint_io import another_version, read_own_checkpoint
from headless.training.imports import OPTION, denied, restrict_imports
from headless.training.module import PretrainingModule


def is_run(place: Path | str) -> bool:
    """Whether it is a run directory or a checkpoint file, and no Hugging Face model."""
    path = Path(place)
    return path.is_file() or (path.is_dir() and RunDirectory(path).config.is_file())


def find_checkpoint(place: Path | str) -> Path:
    """The checkpoint that is meant: a file itself, or the last one of a run directory.

    Raises:
        HeadlessError: there is none.
    """
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
    """The run directory that a checkpoint lies in.

    Raises:
        HeadlessError: it lies in none.
    """
    # Where it lies, before where a link leads.
    places = (checkpoint.absolute(), checkpoint.resolve())
    runs = [RunDirectory(place.parent.parent) for place in places]
    run = next((run for run in runs if run.config.is_file()), None)
    if run is None:
        raise HeadlessError(
            f"{checkpoint} is not in a run directory: it must lie in RUN/checkpoints, beside "
            "RUN/config.yaml and RUN/tokenizer"
        )
    return run


def load_module(place: Path | str) -> PretrainingModule:
    """The module of a run directory's last checkpoint, or of a checkpoint, on the CPU.

    It needs nothing but the checkpoint: neither the data nor, where the run began from another
    model, that model.

    Raises:
        HeadlessError: no checkpoint, a damaged one, one with pickled objects, or another version's.
    """
    path = find_checkpoint(place)
    restrict_imports()
    read_own_checkpoint(path)
    try:
        with warnings.catch_warnings():
            # The objective is a plain description in the checkpoint: the advice does not apply.
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
            return PretrainingModule.load_from_checkpoint(
                path, map_location="cpu", weights_only=True, compile=False
            ).eval()
    except HeadlessError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise another_version(path) from error
    except ArgumentError as error:  # from making the objective
        if name := denied(error):
            raise HeadlessError(
                f"{path} needs {name}: allow it with {OPTION} {name.split('.')[0]}"
            ) from error
        raise another_version(path) from error
