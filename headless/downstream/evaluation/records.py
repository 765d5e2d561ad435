"""Records of an evaluation set: JSON lines, Parquet, directories of them, or a `datasets` name."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headless.data.documents import Documents
from headless.errors import HeadlessError

SPLITS = ("test", "validation", "train")  # the first of them that a data set has


@dataclass(frozen=True)
class Record:
    """Fields of an item, where it stands (for messages), and the stem of its file."""

    fields: dict[str, Any]
    place: str
    stem: str

    def field(self, *names: str) -> Any:
        """The first of some fields that is there.

        Raises:
            HeadlessError: none is; names the nearest one that is.
        """
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        there = ", ".join(self.fields) or "none"
        wanted = " or ".join(map(repr, names))
        near = [m for name in names for m in get_close_matches(name, self.fields, n=1, cutoff=0.7)]
        hint = f": rename {near[0]!r}" if near else ""
        raise HeadlessError(f"{self.place} has no field {wanted} (it has {there}){hint}")

    def text(self, *names: str) -> str:
        """The first of some fields that is there, which must hold text.

        Raises:
            HeadlessError: none is there, or it is blank or no text.
        """
        value = self.field(*names)
        if not isinstance(value, str) or not value.strip():
            shown = "blank" if isinstance(value, str) else f"{type(value).__name__}, not text"
            name = next(name for name in names if self.fields.get(name) is not None)
            raise HeadlessError(f"{self.place}: the field {name!r} is {shown}")
        return value


def read_records(source: str, split: str | None = None) -> Iterator[Record]:
    """Every record of a source, in order.

    Args:
        source: a .jsonl or .parquet file, a directory of them, what `datasets` saved, or a name
            that `datasets` knows, "name" or "name:config".
        split: of a data set; by default its test, validation or training split, the first it has.

    Raises:
        HeadlessError: nothing is there, or it cannot be read.
    """
    files = Documents([source]).files(source)
    if files is None:
        yield from _read_dataset(source, split)
        return
    usable = [path for path in files if path.suffix != ".txt"]
    if not usable:
        raise HeadlessError(f"{source} holds text; this task needs .jsonl or .parquet records")
    for path in usable:
        try:
            yield from _read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path)
        except OSError as error:
            raise HeadlessError(
                f"{path} cannot be read: {error.strerror or 'it is no such file'}"
            ) from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                fields = json.loads(line.decode("utf-8"))
            except ValueError as error:  # UnicodeDecodeError is one, too
                raise HeadlessError(f"{place} is not JSON in UTF-8: {error}") from error
            if not isinstance(fields, dict):
                raise HeadlessError(f"{place} is no JSON object: write one {{…}} a line")
            yield Record(fields, place, path.stem)


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{path}, row {number}", path.stem)
    except pyarrow.ArrowException as error:
        raise HeadlessError(f"{path} is not a Parquet file that can be read: {error}") from error


def _read_dataset(source: str, split: str | None) -> Iterator[Record]:
    import datasets

    datasets.disable_progress_bars()
    try:
        if Path(source).is_dir():
            loaded: Any = datasets.load_from_disk(source)
        else:
            name, _, config = source.partition(":")
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        reason = " ".join(str(error).split())[:300]
        raise HeadlessError(
            f"{source!r} is neither a file nor a directory, and datasets cannot load it: {reason}"
        ) from error
    if isinstance(loaded, dict):
        chosen = choose_split(list(loaded), split, source)
        loaded = loaded[chosen]
        source = f"{source}[{chosen}]"
    for number, fields in enumerate(loaded, start=1):
        yield Record(dict(fields), f"{source}, row {number}", Path(source).name)


def choose_split(there: Sequence[str], split: str | None, source: str) -> str:
    """The split that was asked for, or the first usual one.

    Raises:
        HeadlessError: it is not there.
    """
    if split is not None and split not in there:
        raise HeadlessError(f"{source} has no split {split!r}: --split {', '.join(there)}")
    return split or next((name for name in SPLITS if name in there), there[0])
