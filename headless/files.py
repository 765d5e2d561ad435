"""Files and directories that are whole or not there, and that one process at a time writes to."""

import errno
import glob
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from headless.errors import BusyError, HeadlessError

NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
LEASE_SECONDS = 60.0  # without a sign of life from another host's process, its lock is void
SUMS = "SHA256SUMS"  # as `sha256sum -c` reads it
SUMMED = (".safetensors", ".json", ".py")  # what numbers depend on; a model card may be edited
NAMESPACE = "?pidns-"  # what comes before the process namespace in the name of a lock's host


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to fill; it is flushed to the disk and becomes `path` at the end.

    Readers see the old file or the new one. An `OSError` names `path`, which is as it was.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to tell of
            beside.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a `whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a `whole_file` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def finite(value: Any) -> Any:
    """NaN and infinities, for which JSON has no names, as None: in dicts and lists, too."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_lines(values: Iterable[Any]) -> str:
    """Strict JSON, one value a line; what is not finite is null."""
    lines = (json.dumps(finite(value), allow_nan=False, ensure_ascii=False) for value in values)
    return "".join(line + "\n" for line in lines)


def write_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write a `whole_file` of strict JSON; what is not finite is null."""
    text = json.dumps(
        finite(value), indent=2, allow_nan=False, ensure_ascii=False, sort_keys=sort_keys
    )
    write_text(path, text + "\n")


def move_aside(path: Path) -> Path:
    """Rename to `<name>.old-<n>`, the first that is free, and return that."""
    n = 1
    while (old := path.with_name(f"{path.name}.old-{n}")).exists():
        n += 1
    os.replace(path, old)
    return old


def is_moved_aside(path: Path) -> bool:
    """Whether the name is one that `move_aside` gives."""
    return re.search(r"\.old-[0-9]+$", path.name) is not None


@contextmanager
def exclusive(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold `path`, a file or directory that need not exist yet, against every other writer.

    The lock `.<name>.lock` beside it names host and process. That of a process that is gone from
    this host is void at once; that of another host when it gives no sign of life for
    `LEASE_SECONDS`, which is waited for.

    Args:
        patience: seconds to wait for another writer, where each takes a moment only.
    """
    from filelock import SoftFileLease, Timeout

    path = renamable(path)
    file = path.with_name(f".{path.name}.lock")
    lease = SoftFileLease(file, lease_duration=LEASE_SECONDS, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lease.acquire(timeout=patience, poll_interval=0.05)
        except Timeout:
            host, process, is_visible = _holder(file)
            if is_visible:
                raise
            sys.stderr.write(
                f"headless: {path} is locked by process {process} on {host}: waiting "
                f"whether that gives a sign of life within {LEASE_SECONDS:.0f} s\n"
            )
            lease.acquire(timeout=LEASE_SECONDS + 5.0, poll_interval=0.5)
    except Timeout:
        host, process, _ = _holder(file)
        raise BusyError(
            f"{path} is being written to by process {process} on {host}: wait for it or "
            f"stop it (its lock is {file})"
        ) from None
    except OSError as error:
        if error.errno in NO_RIGHT:
            raise HeadlessError(f"{path} cannot be written: {error.strerror}") from error
        raise
    try:
        yield
    finally:
        lease.release()


def _holder(file: Path) -> tuple[str, str | None, bool]:
    """Host and process that a lock names, and whether it would show: same host and namespace."""
    text = ""
    with suppress(OSError):
        text = file.read_text(encoding="utf-8")
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    host, _, namespace = values.get("host", "").partition(NAMESPACE)
    own = f"{os.stat('/proc/self/ns/pid').st_ino:x}" if namespace else ""
    return host, values.get("pid"), host == os.uname().nodename and namespace == own


def renamable(path: Path) -> Path:
    """The path by which a place can be renamed: no link to it, and neither "." nor ".."."""
    if path.is_symlink():
        return Path(os.path.realpath(path))
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))


@contextmanager
def new_directory(
    path: Path, *, option: str, old: Literal["keep", "remove"] = "keep", **ours: Any
) -> Iterator[Path]:
    """A directory beside `path` to fill; it becomes `path` when the block ends without an error.

    A kill at any moment leaves what was at `path` before, there or at `<name>.old-<n>`; what an
    earlier one left unfinished is removed.

    Args:
        option: that named it, for complaints: "--output".
        old: what is replaced is moved aside, or removed when the new one is complete.
        **ours: overwrite, is_ours and kind, see `refuse_to_lose`.
    """
    path = renamable(path)
    if os.path.ismount(path):
        raise HeadlessError(
            f"{path} is where a disk is mounted: give a directory on it as {option}"
        )
    with exclusive(path):
        replaced = path.with_name(f".{path.name}.replaced")
        _clear_leftovers(path, replaced)
        refuse_to_lose(path, option=option, **ours)
        partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        partial.mkdir()
        try:
            yield partial
            if path.is_dir() and any(path.iterdir()):
                if old == "keep":
                    move_aside(path)
                else:
                    os.replace(path, replaced)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            _clear_leftovers(path, replaced)


def _clear_leftovers(path: Path, replaced: Path) -> None:
    """Under the lock all that is beside `path` is a dead process's."""
    if replaced.exists() and not path.exists():
        os.replace(replaced, path)
    shutil.rmtree(replaced, ignore_errors=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def refuse_to_lose(
    path: Path,
    *,
    option: str,
    overwrite: bool = False,
    is_ours: Callable[[Path], bool] = lambda path: True,
    kind: str = "directory",
) -> None:
    """The first check of `new_directory`, for those who work for long before they write.

    Args:
        is_ours: whether this command made what is at `path`, so that `overwrite` may replace it.
        kind: of directory, for complaints: "prepared dataset".
    """
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not is_ours(path):
        raise HeadlessError(f"{path} is no {kind}, so it stays as it is: give another {option}")
    if not overwrite:
        raise HeadlessError(
            f"{path} exists: give another {option}, or replace it with --overwrite true"
        )


def check_pieces(
    directory: Path, pieces: Sequence[str], *, overwrite: bool, is_ours: Callable[[Path], bool]
) -> None:
    """Whether a command may put its pieces into a directory that may hold other things, too.

    The last piece is put there last: without it an earlier command was cut short, and what it left
    is replaced without `overwrite`.

    Args:
        is_ours: whether this command made the pieces that the directory has.
    """
    if directory.exists() and not directory.is_dir():
        raise HeadlessError(f"{directory} is a file: give another --output")
    existing = [name for name in pieces if os.path.lexists(directory / name)]
    if not existing:
        return
    if not is_ours(directory):
        raise HeadlessError(
            f"{directory} has a {existing[0]} that this command did not make, so it stays: give "
            "another --output"
        )
    if pieces[-1] in existing and not overwrite:
        raise HeadlessError(
            f"{directory} has {pieces[-1]} already: replace it with --overwrite true, or give "
            "another --output"
        )


def holds_json(path: Path, *keys: str) -> bool:
    """Whether a file is a JSON object with these keys: how a command knows what it made."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() >= set(keys)


def sha256_of(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(directory: Path) -> None:
    """List the files that are there: when all are."""
    files = sorted(path for path in directory.iterdir() if path.suffix in SUMMED)
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
