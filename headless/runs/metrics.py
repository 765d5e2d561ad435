"""`metrics.jsonl`: one logged point a line, strict JSON.

A point is a flat object; `progress/tokens` orders them. NaN and infinities are null: JSON has no
names for them. A process that is killed leaves at most one line half written, at the end.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headless.runs.directory import write_text

TOKENS = "progress/tokens"


def append_point(path: Path, point: Mapping[str, Any]) -> None:
    """Add a line, in one write."""
    clean = {k: _finite(v) for k, v in point.items()}
    line = json.dumps(clean, allow_nan=False, ensure_ascii=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All points of a file, without a half-written last line; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]  # what follows the last newline: ""


def truncate_metrics(path: Path, tokens: int) -> list[dict[str, Any]]:
    """Drop the points after `tokens` training tokens, which a resumed run will log again.

    Returns:
        What was dropped.
    """
    points = read_metrics(path)
    if path.is_file():
        kept = [point for point in points if point.get(TOKENS, -1) <= tokens]
        write_text(path, "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in kept))
    return [point for point in points if point.get(TOKENS, -1) > tokens]
