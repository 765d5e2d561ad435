"""Records, which are objects with named fields: from files, and from what `datasets` loads.

.jsonl .json    one a line, or in a list
.parquet        one a row
.csv .tsv       one a row below the names; quotes are text in .tsv, as in GLUE's files
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from headless.data.text_files import PARQUET, PLAIN, decode, find_files, kind_of, open_text
from headless.errors import HeadlessError, one_line

TABLES = (".csv", ".tsv")
RECORDS = (".jsonl", ".json", PARQUET, *TABLES)
SPLITS = ("test", "validation", "train")  # the first of them that a data set has


@dataclass(frozen=True)
class Record:
    """Fields, where they stand (for messages: "a.jsonl:3"), and the stem of the file's name."""

    fields: dict[str, Any]
    place: str
    stem: str

    def field(self, *names: str) -> Any:
        """The first of these fields that is not missing or null."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        present = ", ".join(self.fields) or "none"
        wanted = " or ".join(map(repr, names))
        near = [m for name in names for m in get_close_matches(name, self.fields, n=1, cutoff=0.7)]
        hint = f": rename {near[0]!r}" if near else ""
        raise HeadlessError(f"{self.place} has no field {wanted} (it has {present}){hint}")

    def text(self, *names: str) -> str:
        """The first of these fields that is not missing or null: text that is not blank."""
        value = self.field(*names)
        if not isinstance(value, str) or not value.strip():
            shown = "blank" if isinstance(value, str) else f"{type(value).__name__}, not text"
            name = next(name for name in names if self.fields.get(name) is not None)
            raise HeadlessError(f"{self.place}: the field {name!r} is {shown}")
        return value


def read_records(
    source: str, split: str | None = None, only: str | None = None
) -> Iterator[Record]:
    """Every record of a file, of the files of a directory, or of a data set that `datasets` knows
    as "name" or "name:config": its `split`, by default the first that it has of `SPLITS`. Fields
    but `only` may be left unread, and .json files of a directory without it."""
    listing = find_files(source, only)
    if listing is not None:
        files = [path for path in listing.files if kind_of(path) not in PLAIN]
        if not files:
            raise HeadlessError(f"{source} holds text; this needs .jsonl or .parquet records")
        for path in files:
            yield from read_file(path, only)
        return
    loaded = load_named(source)
    if isinstance(loaded, dict):
        if split is not None and split not in loaded:
            raise HeadlessError(f"{source} has no split {split!r}: --split {', '.join(loaded)}")
        split = split or next((name for name in SPLITS if name in loaded), next(iter(loaded)))
        loaded, source = loaded[split], f"{source}[{split}]"
    for number, fields in enumerate(loaded, start=1):
        yield Record(dict(fields), f"{source}, row {number}", Path(source).name)


def load_named(name: str, split: str | None = None) -> Any:
    """What `datasets` saved in a directory, or loads as "name" or "name:config": a Dataset, without
    `split` a DatasetDict where it has splits."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if Path(name).is_dir():
            loaded: Any = datasets.load_from_disk(name)
            return loaded[split] if split and isinstance(loaded, dict) else loaded
        dataset, _, config = name.partition(":")
        return datasets.load_dataset(dataset, config or None, split=split)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        raise HeadlessError(
            f"{name!r} is neither a file nor a directory, and datasets cannot load it: "
            + one_line(error, 300)
        ) from error


def read_file(path: Path, only: str | None = None) -> Iterator[Record]:
    """The records of a file, in order; fields but `only` may be left unread."""
    kind = kind_of(path, RECORDS)
    if kind == PARQUET:
        rows = _read_parquet(path, only)
    elif kind in TABLES:
        rows = _read_table(path, tabs=kind == ".tsv")
    else:
        rows = _read_json(path) if kind == ".json" else _read_jsonl(path)
    for fields, place in rows:
        if not isinstance(fields, dict):
            raise HeadlessError(f"{place} is no JSON object: write one {{…}} a line")
        yield Record(fields, place, path.stem)


Rows = Iterator[tuple[Any, str]]


def _read_json(path: Path) -> Rows:
    """A list of records, one record, or JSON lines."""
    with open_text(path) as file:
        text = decode(path, file.read())
    try:
        content = _parse(text, str(path))
    except HeadlessError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError) and cause.msg.startswith("Extra data"):
            return _read_jsonl(path)
        raise
    if not isinstance(content, list):
        return iter([(content, str(path))])
    return ((fields, f"{path}[{i}]") for i, fields in enumerate(content))


def _read_jsonl(path: Path) -> Rows:
    offset = 0
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}:{number}"
                yield _parse(decode(path, line, offset), place), place
            offset += len(line)


def _read_parquet(path: Path, only: str | None) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if only is not None and only not in file.schema_arrow.names:
                raise no_field(only, file.schema_arrow.names, str(path))
            batches = file.iter_batches(columns=only and [only])
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, fields in enumerate(rows, start=1):
                yield fields, f"{path}, row {number}"
    except (pyarrow.ArrowException, OSError) as error:
        raise HeadlessError(f"{path} is not a Parquet file that can be read: {error}") from error


def _read_table(path: Path, *, tabs: bool) -> Rows:
    csv.field_size_limit(2**31 - 1)
    with open_text(path) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
        reader = csv.reader(
            lines,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        )
        try:
            names = next(reader, [])
            for values in filter(None, reader):
                place = f"{path}:{reader.line_num}"
                if len(values) != len(names):
                    raise HeadlessError(
                        f"{place} has {len(values)} columns and the first line {len(names)}"
                    )
                yield dict(zip(names, values, strict=True)), place
        except (csv.Error, UnicodeDecodeError) as error:
            raise HeadlessError(
                f"{path} cannot be read after line {reader.line_num}: {error}"
            ) from error


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HeadlessError(f"{place} is not JSON: {error}") from error
    except RecursionError as error:
        raise HeadlessError(f"{place} is nested too deeply to be a record") from error


def no_field(field: str, fields: Sequence[str], place: str) -> HeadlessError:
    """The complaint that records have not the field that holds the text or the items."""
    names = ", ".join(fields) or "none"
    return HeadlessError(
        f"{place} has no field {field!r} (it has {names}): name another with --text_field, "
        "or with --item_field where it holds item ids"
    )
