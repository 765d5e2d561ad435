"""`metrics.jsonl`: one logged point a line, strict JSON.

A point is a flat object; `progress/tokens` orders them. NaN and infinities are null: JSON has no
names for them. A process that is killed leaves at most one line half written, at the end; readers
leave it out, and whoever appends next cuts it off.
"""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from headless.errors import HeadlessError
from headless.files import json_lines, write_text

TOKENS = "progress/tokens"


def append_point(path: Path, point: Mapping[str, Any]) -> None:
    """Add a line, in one write that is handed to the system at once, or leave the file as it was.

    A last line that another process left half written would swallow the new one: it is cut off,
    unless only its end is missing. An OSError names the file.
    """
    line = json_lines([point]).encode()
    try:
        with open(path, "a+b", buffering=0) as file:
            size = _mend_end(file)
            written = file.write(line)
            if written != len(line):  # a disk that fills up takes a part of it, without an error
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _mend_end(file: BinaryIO) -> int:
    """End the last line of a file, or cut it off where it is no whole point; the size then."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return size
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    *whole, last = file.read().split(b"\n")
    if _parse(last) is not None:
        file.write(b"\n")
        return size + 1
    size = sum(len(line) + 1 for line in whole)
    file.truncate(size)
    return size


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        point = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return point if isinstance(point, dict) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All points of a file, without a half-written last line; none where there is no file."""
    if not path.is_file():
        return []
    points = []
    # As bytes: a half-written line may end inside a character.
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, start=1):
        if not line.strip():
            continue
        point = _parse(line)
        problem = "no JSON object" if point is None else f"{TOKENS} is no number"
        if point is None or not isinstance(point.get(TOKENS, 0), int | float):
            raise HeadlessError(f"{path}, line {number} is damaged ({problem}): delete that line")
        points.append(point)
    return points


def truncate_metrics(path: Path, tokens: int) -> list[dict[str, Any]]:
    """Drop and return the points after `tokens` training tokens: a resumed run logs them again."""
    points = read_metrics(path)
    if path.is_file():
        write_text(path, json_lines(p for p in points if p.get(TOKENS, -1) <= tokens))
    return [point for point in points if point.get(TOKENS, -1) > tokens]
