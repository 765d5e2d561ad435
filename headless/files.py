"""Files that are whole or not there."""

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write beside, flush to the disk and rename: readers see the old file or the new one.

    Raises:
        OSError: there is no room, or no right to write; `path` is as it was, and named.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))
