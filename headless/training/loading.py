"""Where a trained model lies: run directories and their checkpoints."""

from pathlib import Path

from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory, open_run


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
