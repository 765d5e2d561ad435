"""A run directory: every file of a run, named in one place, written whole or not at all."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headless.errors import HeadlessError
from headless.files import write_text


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run below `path`."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config: `headless pretrain --config` on it starts the same run again."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device, commit and command."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """Every logged point."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Texts that the model wrote while it was trained."""
        return self.path / "samples.jsonl"

    @property
    def evaluations(self) -> Path:
        """What the model scored on tasks, one result a line."""
        return self.path / "evaluations.jsonl"

    @property
    def analysis(self) -> Path:
        """What `headless analyze` found: a directory with a page and analysis.json."""
        return self.path / "analysis"

    @property
    def summary(self) -> Path:
        """The headline numbers."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """All checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The one to go on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that made the data."""
        return self.path / "tokenizer"

    @property
    def wandb(self) -> Path:
        """What `wandb sync` uploads."""
        return self.path / "wandb"

    @classmethod
    def create(cls, path: Path, *, resume: bool = False, overwrite: bool = False) -> "RunDirectory":
        """Make the directory.

        With `overwrite` an existing one is moved aside to `<name>.old-<n>`, never deleted; with
        `resume` it is used as it is.

        Raises:
            HeadlessError: it exists, and neither was asked for.
        """
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise HeadlessError(f"{run.path} is a file: give another --run.name or --run.root")
        if run.path.exists() and any(run.path.iterdir()) and not resume:
            if not overwrite:
                raise HeadlessError(
                    f"{run.path} exists: go on with --run.resume true, give another --run.name, or "
                    "start anew with --run.overwrite true (the old one is moved aside)"
                )
            n = 1
            while (old := run.path.with_name(f"{run.path.name}.old-{n}")).exists():
                n += 1
            os.replace(run.path, old)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run

    def read_config(self) -> dict[str, Any]:
        """The resolved config."""
        return yaml.safe_load(self.config.read_text(encoding="utf-8"))

    def write_config(self, text: str) -> None:
        """Write the resolved config, already in YAML."""
        write_text(self.config, text)

    def read_environment(self) -> dict[str, Any]:
        """What `describe_environment` found; empty where it is missing."""
        return _read_json(self.environment)

    def write_environment(self, values: dict[str, Any]) -> None:
        """Write what `describe_environment` found."""
        _write_json(self.environment, values)

    def read_summary(self) -> dict[str, Any]:
        """The headline numbers; empty where there are none yet."""
        return _read_json(self.summary)

    def write_summary(self, values: dict[str, Any]) -> None:
        """Write the headline numbers."""
        _write_json(self.summary, values)


def open_run(path: Path | str) -> RunDirectory:
    """An existing run.

    Raises:
        HeadlessError: not a run directory.
    """
    run = RunDirectory(Path(path))
    if not run.config.is_file():
        raise HeadlessError(
            f"{run.path} is not a run directory (no {run.config.name}): headless pretrain makes one"
        )
    return run


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
