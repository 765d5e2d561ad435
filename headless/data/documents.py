"""Documents from text, JSON lines and Parquet files, directories of them, or a `datasets` name."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError

SUFFIXES = (".txt", ".jsonl", ".parquet")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


@dataclass(frozen=True)
class Documents:
    """The documents of some inputs, in a fixed order; can be iterated any number of times.

    Args:
        inputs: paths of files and directories (read recursively, sorted), or a `datasets` name,
            "name" or "name:config".
        text_field: the field or column that holds the text (jsonl, parquet, datasets).
        separator: splits a txt file into documents; None makes each file one document.
        split: which split of a `datasets` name.
    """

    inputs: Sequence[str]
    text_field: str = "text"
    separator: str | None = None
    split: str = "train"

    def __post_init__(self) -> None:
        if self.separator == "":
            raise HeadlessError("document_separator is empty: leave it out, or give some text")

    def files(self, name: str) -> list[Path] | None:
        """The files that an input names, a directory expanded; None for a `datasets` name.

        Raises:
            HeadlessError: a path that does not exist, a directory without text, an unknown suffix.
        """
        path = Path(name)
        if path.is_dir():
            if _is_saved_dataset(path):
                return None
            inside = sorted(p for p in path.rglob("*") if _is_text(p, path))
            if not inside:
                raise HeadlessError(f"{path} holds no {', '.join(SUFFIXES)} file")
            return inside
        if path.is_file():
            if path.suffix not in SUFFIXES:
                raise HeadlessError(
                    f"{path} is none of {', '.join(SUFFIXES)}: rename it or convert it"
                )
            return [path]
        if path.suffix in SUFFIXES or not HUB_NAME.fullmatch(name):
            raise HeadlessError(f"there is no {path}")
        return None

    def __iter__(self) -> Iterator[str]:
        """Every document that is not blank.

        Raises:
            HeadlessError: an input that cannot be read or decoded, or has no field of that name.
        """
        found = [(name, self.files(name)) for name in self.inputs]  # all, before any is read
        for name, files in found:
            readers = [self._read_dataset(name)] if files is None else map(self._read, files)
            try:
                for texts in readers:
                    yield from (text for text in texts if text.strip())
            except OSError as error:
                raise HeadlessError(
                    f"{error.filename or name} cannot be read: {error.strerror or error}"
                ) from error

    def _read(self, path: Path) -> Iterator[str]:
        if path.suffix == ".txt":
            text = _decode(path, path.read_bytes(), 0)
            return iter([text] if self.separator is None else text.split(self.separator))
        return self._read_jsonl(path) if path.suffix == ".jsonl" else self._read_parquet(path)

    def _read_jsonl(self, path: Path) -> Iterator[str]:
        offset = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        record = json.loads(_decode(path, line, offset))
                    except json.JSONDecodeError as error:
                        raise HeadlessError(f"{path}:{number} is not JSON: {error}") from error
                    yield self._text(record, f"{path}:{number}")
                offset += len(line)

    def _read_parquet(self, path: Path) -> Iterator[str]:
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                if self.text_field not in columns:
                    raise HeadlessError(_no_field(self.text_field, columns, str(path)))
                for batch in file.iter_batches(columns=[self.text_field]):
                    for value in batch.column(0).to_pylist():
                        yield self._text({self.text_field: value}, str(path))
        except (pyarrow.ArrowException, OSError) as error:
            raise HeadlessError(
                f"{path} is not a Parquet file that can be read: {error}"
            ) from error

    def _read_dataset(self, name: str) -> Iterator[str]:
        import datasets

        datasets.disable_progress_bars()
        try:
            if Path(name).is_dir():
                loaded: Any = datasets.load_from_disk(name)
                loaded = loaded[self.split] if isinstance(loaded, datasets.DatasetDict) else loaded
            else:
                dataset, _, config = name.partition(":")
                loaded = datasets.load_dataset(dataset, config or None, split=self.split)
        except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
            raise HeadlessError(
                f"{name!r} is neither a file nor a directory, and datasets cannot load it: {error}"
            ) from error
        if self.text_field not in loaded.column_names:
            raise HeadlessError(_no_field(self.text_field, loaded.column_names, name))
        for record in loaded.select_columns([self.text_field]):
            yield self._text(record, name)

    def _text(self, record: Any, place: str) -> str:
        if not isinstance(record, dict) or self.text_field not in record:
            keys = list(record) if isinstance(record, dict) else []
            raise HeadlessError(_no_field(self.text_field, keys, place))
        text = record[self.text_field]
        if text is None:
            return ""
        if not isinstance(text, str):
            raise HeadlessError(
                f"{place}: the field {self.text_field!r} holds {type(text).__name__}, not text"
            )
        try:
            _ = text.isascii() or text.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON can escape what UTF-8 cannot hold
            raise HeadlessError(
                f"{place}: half a surrogate pair at character {error.start} of the text: mend it "
                "or leave it out"
            ) from error
        return text


def _is_text(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix in SUFFIXES and not hidden and path.is_file()


def _is_saved_dataset(path: Path) -> bool:
    return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


def _decode(path: Path, raw: bytes, offset: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HeadlessError(
            f"{path} is not UTF-8 at byte {offset + error.start}: convert it "
            f"(iconv -t utf-8) or leave it out"
        ) from error


def _no_field(field: str, fields: Sequence[str], place: str) -> str:
    return (
        f"{place} has no field {field!r} (it has {', '.join(fields) or 'none'}): give --text_field"
    )
