"""`metrics.jsonl`: one logged point a line, strict JSON.

A point is a flat object; `progress/tokens` orders them. NaN and infinities are null: JSON has no
names for them. A process that is killed leaves at most one line half written, at the end; readers
leave it out, and `truncate_metrics` removes it before a resumed run appends.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.files import write_text

TOKENS = "progress/tokens"


def _line(point: Mapping[str, Any]) -> str:
    clean = {key: _finite(value) for key, value in point.items()}
    return json.dumps(clean, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_point(path: Path, point: Mapping[str, Any]) -> None:
    """Add a line, in one write that is handed to the system at once."""
    line = _line(point).encode()
    with open(path, "ab", buffering=0) as file:
        file.write(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All points of a file, without a half-written last line; none where there is no file.

    Raises:
        HeadlessError: a line that is whole but no JSON object: the file was damaged.
    """
    if not path.is_file():
        return []
    points = []
    # As bytes: a half-written line may end inside a character.
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, start=1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
        except ValueError:
            point = None
        if not isinstance(point, dict):
            raise HeadlessError(
                f"{path}, line {number} is damaged (no JSON object): delete that line"
            )
        points.append(point)
    return points


def truncate_metrics(path: Path, tokens: int) -> list[dict[str, Any]]:
    """Drop the points after `tokens` training tokens, which a resumed run will log again.

    Returns:
        What was dropped.

    Raises:
        HeadlessError: as `read_metrics`.
    """
    points = read_metrics(path)
    if path.is_file():
        kept = [point for point in points if point.get(TOKENS, -1) <= tokens]
        write_text(path, "".join(map(_line, kept)))
    return [point for point in points if point.get(TOKENS, -1) > tokens]
