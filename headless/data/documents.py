"""Documents from text, JSON and Parquet files, directories of them, or a `datasets` name."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.data.text_files import (
    OPENERS,
    PLAIN,
    SUFFIXES,
    describe,
    kind_of,
    open_text,
    walk,
)
from headless.errors import HeadlessError

ANY_END = r"(?:\r\n|\n|\r(?!\n))"  # of a line
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


@dataclass(frozen=True)
class Documents:
    """The documents of some inputs, in a fixed order; can be iterated any number of times.

    Args:
        inputs: paths of files and directories (read recursively, sorted), or a `datasets` name,
            "name" or "name:config"; see `headless.data.text_files` for what can be read.
        text_field: the field or column that holds the text (records and tables).
        separator: splits a text file into documents; None makes each file one document. A line
            end in it stands for any line end, and two for blank lines, blanks on them or not.
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
            found = walk(path, self.text_field)
            if not found.files:
                others = f": {describe(found.left_out)}" if found.left_out else ""
                raise HeadlessError(f"{path} holds no {', '.join(SUFFIXES)} file{others}")
            return found.files
        if path.is_file():
            if kind_of(path) is None:
                raise HeadlessError(
                    f"{path} is none of {', '.join(SUFFIXES)} (nor one of the first four with "
                    f"{', '.join(OPENERS)} after it): rename it or convert it"
                )
            return [path]
        if kind_of(path) is not None or not HUB_NAME.fullmatch(name):
            raise HeadlessError(f"there is no {path}")
        return None

    def left_out(self) -> list[tuple[Path, str]]:
        """What lies in the directories among the inputs and is not read, with the reasons."""
        directories = [path for path in map(Path, self.inputs) if path.is_dir()]
        read = [path for path in directories if not _is_saved_dataset(path)]
        return [entry for path in read for entry in walk(path, self.text_field).left_out]

    def __iter__(self) -> Iterator[str]:
        """Every document that is not blank.

        Raises:
            HeadlessError: an input that cannot be read or decoded, has no field of that name, or
                a separator that is nowhere.
        """
        found = [(name, self.files(name)) for name in self.inputs]  # all, before any is read
        split = Splitter(self.separator)
        for name, files in found:
            paths: Sequence[Path | None] = [None] if files is None else files
            try:
                for path in paths:
                    texts = self._read_dataset(name) if path is None else self._read(path, split)
                    yield from (text for text in texts if text.strip())
            except OSError as error:
                raise HeadlessError(
                    f"{error.filename or name} cannot be read: {error.strerror or error}"
                ) from error
        split.check(self.inputs)

    def _read(self, path: Path, split: "Splitter") -> Iterator[str]:
        kind = kind_of(path)
        if kind in PLAIN:
            with open_text(path) as file:
                return iter(split(_decode(path, file.read(), 0)))
        if kind == ".json":
            return self._read_json(path)
        return self._read_jsonl(path) if kind == ".jsonl" else self._read_parquet(path)

    def _read_json(self, path: Path) -> Iterator[str]:
        """A list of records, one record, or JSON lines."""
        with open_text(path) as file:
            text = _decode(path, file.read(), 0)
        try:
            content = _parse(text, str(path))
        except HeadlessError as error:
            if not isinstance(error.__cause__, json.JSONDecodeError):
                raise
            if not error.__cause__.msg.startswith("Extra data"):
                raise
            return self._read_jsonl(path)
        if not isinstance(content, list):
            return iter([self._text(content, str(path))])
        return (self._text(record, f"{path}[{i}]") for i, record in enumerate(content))

    def _read_jsonl(self, path: Path) -> Iterator[str]:
        offset = 0
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{path}:{number}"
                    yield self._text(_parse(_decode(path, line, offset), place), place)
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


class Splitter:
    """Cuts texts at a separator and remembers whether it was ever there.

    Args:
        separator: None leaves every text whole.
    """

    def __init__(self, separator: str | None) -> None:
        self.separator = separator
        self.texts = 0
        self.found = False

    def __call__(self, text: str) -> list[str]:
        """The documents of a text, without the separators."""
        if self.separator is None:
            return [text]
        parts = re.split(self._pattern("\n" if "\r" not in text else ANY_END), text)
        self.texts += 1
        self.found = self.found or len(parts) > 1
        return parts

    def _pattern(self, end: str) -> str:
        assert self.separator is not None
        separator = self.separator.replace("\r\n", "\n").replace("\r", "\n")
        lines = [re.escape(line) for line in separator.split("\n")]
        blank = r"[^\S\r\n]*"  # what may stand on a blank line
        first, *others = lines
        inner = [line or blank for line in others[:-1]] + others[-1:]
        return end.join([first, *inner])

    def check(self, inputs: Sequence[str]) -> None:
        """Refuse a separator that separated nothing.

        Raises:
            HeadlessError: it was in none of the texts.
        """
        if self.separator is not None and not self.found:
            raise HeadlessError(
                f"the document separator {self.separator!r} is in none of the {self.texts} text "
                f"files of {', '.join(inputs)}: give another --document_separator, or leave it out"
            )


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


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HeadlessError(f"{place} is not JSON: {error}") from error
    except RecursionError as error:
        raise HeadlessError(f"{place} is nested too deeply to be a record") from error


def _no_field(field: str, fields: Sequence[str], place: str) -> str:
    return (
        f"{place} has no field {field!r} (it has {', '.join(fields) or 'none'}): give --text_field"
    )
