"""Checksums of files; those of a directory as `sha256sum -c SHA256SUMS` reads them."""

import hashlib
from pathlib import Path

from headless.errors import HeadlessError

SUMS = "SHA256SUMS"
SUFFIXES = (".safetensors", ".json", ".py")  # what numbers depend on; a model card may be edited


def sha256_of(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(directory: Path) -> None:
    """List the files that are there: when all are."""
    files = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES)
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in files]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(directory: Path) -> None:
    """Refuse files of a directory that are not what its checksums, where it has any, say."""
    sums = directory / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        wanted, _, name = line.partition("  ")
        file = directory / name
        if not file.is_file() or sha256_of(file) != wanted:
            raise HeadlessError(
                f"{file} is not what {sums} says, so it is damaged: make it again (or remove "
                f"{SUMS}, if the change is yours)"
            )
