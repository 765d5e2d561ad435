"""Which files hold text, and how each is opened: plain or compressed, whatever the case of a name.

.txt .md        a text
.jsonl .json    records, one a line or in a list
.parquet        records (not compressed from outside)
.gz .bz2 .xz .zst   after the first four: compressed
"""

import bz2
import gzip
import io
import json
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from headless.errors import HeadlessError

PLAIN, RECORDS, PARQUET = (".txt", ".md"), (".jsonl", ".json"), ".parquet"
SUFFIXES = (*PLAIN, *RECORDS, PARQUET)
PEEKED_BYTES = 1_000_000  # of a .json file, which may be a setting of some program


def _open_zstd(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}


class Found(NamedTuple):
    """What a directory holds: files to read, sorted, and everything else with the reason."""

    files: list[Path]
    left_out: list[tuple[Path, str]]


def kind_of(path: Path) -> str | None:
    """One of `SUFFIXES`; None where it is no file that can be read."""
    *_, last = ("", *path.suffixes)
    suffix = last.lower()
    if suffix not in OPENERS:
        return suffix if suffix in SUFFIXES else None
    inside = Path(path.stem).suffix.lower()
    return inside if inside in (*PLAIN, *RECORDS) else None


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked.

    Raises:
        HeadlessError: it is no such archive, or cut off.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        with open(path, "rb") as file:
            yield file
        return
    try:
        with opener(path) as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        if isinstance(error, HeadlessError) or getattr(error, "errno", None):
            raise
        raise HeadlessError(f"{path} cannot be unpacked: it is cut off or damaged") from error


def walk(root: Path, text_field: str) -> Found:
    """Look through a directory and all below it; links to directories are followed, each once.

    Raises:
        HeadlessError: a directory that cannot be read.
    """
    files, left_out = [], []
    seen, top = set(), os.path.realpath(root)
    directories = [root]
    links: list[Path] = []  # come last: what lies in the tree itself keeps its place
    while directories or links:
        directory = directories.pop() if directories else links.pop(0)
        real = os.path.realpath(directory)
        if real in seen or top.startswith(os.path.join(real, "")):
            left_out.append((directory, "link to what is read already or lies above"))
            continue
        seen.add(real)
        for path in _entries(directory):
            if path.name.startswith("."):
                left_out.append((path, "hidden"))
            elif path.is_dir():
                (links if path.is_symlink() else directories).append(path)
            elif reason := _unreadable(path, text_field):
                left_out.append((path, reason))
            else:
                files.append(path)
    return Found(sorted(files), sorted(left_out))


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise HeadlessError(f"{directory} cannot be read: {error.strerror}") from error


def _unreadable(path: Path, text_field: str) -> str | None:
    """Why a file of a directory is left out."""
    if not path.exists():
        return "link to nothing"
    if not path.is_file():
        return "no file"
    kind = kind_of(path)
    if kind is None:
        return path.suffix.lower() or "no suffix"
    if kind == ".json":
        with open_text(path) as file:
            begin: bytes = file.read(PEEKED_BYTES)
        written = [json.dumps(text_field, ensure_ascii=ascii).encode() for ascii in (True, False)]
        if not any(name in begin for name in written):
            return f".json without a field {text_field!r}"
    return None


def describe(left_out: list[tuple[Path, str]], names: int = 3) -> str:
    """A line: how many for each reason, the commonest first, and some names."""
    counts = Counter(reason for _, reason in left_out)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    shown = [str(path) for path, _ in left_out[:names]] + ["…"] * (len(left_out) > names)
    return f"{len(left_out)} left out ({reasons}): {', '.join(shown)}"
