"""Reading back what W&B wrote: the records of a `.wandb` file.

The files are LevelDB logs: blocks of 32 KiB; each record in one or more parts, each part behind a
header of checksum, length and kind; W&B puts 7 bytes of its own before the first. A killed process
leaves out up to a block of its last records.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The whole records of a file as W&B's protocol buffers; none where it is no such file."""
    from wandb.proto import wandb_internal_pb2 as protocol

    data, parts = path.read_bytes(), b""
    if data[:4] != b":W&B":
        return
    at = HEADER.size
    while at + HEADER.size <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER.size:
            at += room  # too little for a header: padding
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        if at + length > len(data):
            return
        parts += data[at : at + length]
        at += length
        if kind in (WHOLE, LAST):
            yield protocol.Record.FromString(parts)  # type: ignore[attr-defined]
            parts = b""


def points_on_disk(directory: Path) -> int:
    """How many points W&B's files in a directory hold, over all processes of the run."""
    files = directory.glob("*run-*/run-*.wandb")
    points = (r for path in files for r in records(path) if r.HasField("history"))
    return max((record.history.step.num + 1 for record in points), default=0)
