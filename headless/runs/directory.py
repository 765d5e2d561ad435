"""A run directory: every file of a run, named in one place, written whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.files import write_json, write_text
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

    def write_config(self, text: str) -> None:
        write_text(self.config, text)

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

    def write_environment(self, values: dict[str, Any]) -> None:
        write_json(self.environment, values, sort_keys=True)

    def read_summary(self) -> dict[str, Any]:
        return _read_json(self.summary)

    def write_summary(self, values: dict[str, Any]) -> None:
        write_json(self.summary, values, sort_keys=True)


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
