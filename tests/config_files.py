"""A config file and its parts as one mapping, without the live parser."""

from pathlib import Path
from typing import Any

from headless.structured import read_yaml
from headless.training.options import with_parts


def read_config(path: str | Path) -> dict[str, Any]:
    """A config file with its parts, as one mapping."""
    config: dict[str, Any] = {}
    for word in with_parts(["--config", str(path)]):
        _merge(config, read_yaml(Path(word.removeprefix("--config="))))
    config.pop("parts", None)
    return config


def _merge(config: dict[str, Any], later: dict[str, Any]) -> None:
    for key, value in later.items():
        before = config.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and "class_path" not in value:
            _merge(before, value)
        else:
            config[key] = value
