"""Which files hold text, and how each is opened: plain or compressed, whatever the case of a name.

.txt .md        a text
.jsonl .json    records, one a line or in a list
.parquet        records (not compressed from outside)
.gz .bz2 .xz .zst   after all but .parquet: compressed
"""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from headless.errors import HeadlessError

PLAIN, PARQUET = (".txt", ".md"), ".parquet"
SUFFIXES = (*PLAIN, ".jsonl", ".json", PARQUET)
PEEKED_BYTES = 1_000_000  # of a .json file, which may be a setting of some program
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def _open_zstd(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}


class Listing(NamedTuple):
    """Files to read, sorted, and everything else that lies among them with the reason."""

    files: list[Path]
    left_out: list[tuple[Path, str]]


def kind_of(path: Path, kinds: Sequence[str] = SUFFIXES) -> str | None:
    """Which of the kinds of file; None where it is none of them."""
    suffix = path.suffix.lower()
    if suffix in OPENERS:
        suffix = Path(path.stem).suffix.lower()
        return suffix if suffix in kinds and suffix != PARQUET else None
    return suffix if suffix in kinds else None


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    try:
        with OPENERS.get(path.suffix.lower(), lambda path: open(path, "rb"))(path) as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        if reason := getattr(error, "errno", None) and getattr(error, "strerror", None):
            raise HeadlessError(f"{path} cannot be read: {reason}") from error
        raise HeadlessError(f"{path} cannot be unpacked: it is cut off or damaged") from error


def decode(path: Path, raw: bytes, offset: int = 0) -> str:
    """UTF-8; `offset` is where the bytes begin in the file."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HeadlessError(
            f"{path} is not UTF-8 at byte {offset + error.start}: convert it "
            f"(iconv -t utf-8) or leave it out"
        ) from error


def find_files(name: str, text_field: str | None = None) -> Listing | None:
    """What a path names, a directory with all below it; None for what `datasets` loads. A .json
    file of a directory that does not name the `text_field`, if one is given, is left out."""
    path = Path(name)
    if path.is_dir():
        if any((path / f"dataset_{part}.json").is_file() for part in ("info", "dict")):
            return None
        listing = _walk(path, text_field)
        if not listing.files:
            others = f": {describe(listing.left_out)}" if listing.left_out else ""
            raise HeadlessError(f"{path} holds no {', '.join(SUFFIXES)} file{others}")
        return listing
    if path.is_file():
        if kind_of(path) is None:
            raise HeadlessError(
                f"{path} is none of {', '.join(SUFFIXES)} (nor one of the first four with "
                f"{', '.join(OPENERS)} after it): rename it or convert it"
            )
        return Listing([path], [])
    if kind_of(path) is not None or not HUB_NAME.fullmatch(name):
        raise HeadlessError(f"there is no {path}")
    return None


def _walk(root: Path, text_field: str | None) -> Listing:
    """Links to directories are followed, each once."""
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
        try:
            entries = sorted(directory.iterdir())
        except OSError as error:
            raise HeadlessError(f"{directory} cannot be read: {error.strerror}") from error
        for path in entries:
            if path.name.startswith("."):
                left_out.append((path, "hidden"))
            elif path.is_dir():
                (links if path.is_symlink() else directories).append(path)
            elif reason := _unreadable(path, text_field):
                left_out.append((path, reason))
            else:
                files.append(path)
    return Listing(sorted(files), sorted(left_out))


def _unreadable(path: Path, text_field: str | None) -> str | None:
    """Why a file of a directory is left out."""
    if not path.exists():
        return "link to nothing"
    if not path.is_file():
        return "no file"
    kind = kind_of(path)
    if kind is None:
        return path.suffix.lower() or "no suffix"
    if kind == ".json" and text_field is not None:
        with open_text(path) as file:
            begin: bytes = file.read(PEEKED_BYTES)
        spellings = [json.dumps(text_field, ensure_ascii=ascii).encode() for ascii in (True, False)]
        if not any(name in begin for name in spellings):
            return f".json without a field {text_field!r}"
    return None


def describe(left_out: Sequence[tuple[Path, str]]) -> str:
    """A line: how many for each reason, the commonest first, and three names."""
    counts = Counter(reason for _, reason in left_out)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    shown = [str(path) for path, _ in left_out[:3]] + ["…"] * (len(left_out) > 3)
    return f"{len(left_out)} left out ({reasons}): {', '.join(shown)}"
