"""Documents from text, JSON and Parquet files, directories of them, or a `datasets` name."""

import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from headless.data.records import load_named, no_field, read_file
from headless.data.text_files import PLAIN, decode, find_files, kind_of, open_text
from headless.errors import HeadlessError

BATCH_CHARACTERS = 4_000_000  # of text that is worked on at a time; or bytes, or items
Piece = TypeVar("Piece", bound=Sized)
LINE_END = r"(?:\r\n|\n|\r(?!\n))"  # of a line


def in_batches(texts: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The texts, or what else has a length, in lists of about `BATCH_CHARACTERS`."""
    batch: list[Piece] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Documents:
    """The documents of some inputs, in a fixed order; can be iterated any number of times."""

    #: paths of files and directories (read recursively, sorted), or a `datasets` name, "name" or
    #: "name:config"; see `headless.data.text_files` for what can be read
    inputs: Sequence[str]
    text_field: str = "text"  #: the field or column that holds the text (records and tables)
    #: splits a text file into documents; None makes each file one document. A line end in it
    #: stands for any line end, and two for blank lines, blanks on them or not.
    separator: str | None = None
    split: str = "train"  #: which split of a `datasets` name

    unit = "document"
    how_to_give_more = "give more files, or split a text with --document_separator"

    def __post_init__(self) -> None:
        if self.separator == "":
            raise HeadlessError("document_separator is empty: leave it out, or give some text")

    def left_out(self) -> list[tuple[Path, str]]:
        """What lies in the directories among the inputs and is not read, with the reasons."""
        directories = [name for name in self.inputs if Path(name).is_dir()]
        listings = (find_files(name, self.text_field) for name in directories)
        return [entry for listing in listings if listing is not None for entry in listing.left_out]

    def __iter__(self) -> Iterator[str]:
        """Every document that is not blank."""
        inputs = [(name, find_files(name, self.text_field)) for name in self.inputs]
        plain, separated = 0, False
        for name, listing in inputs:
            if listing is None:
                yield from self._read_dataset(name)
                continue
            for path in listing.files:
                if kind_of(path) not in PLAIN:
                    records = read_file(path, only=self.text_field)
                    texts = (self._text(record.fields, record.place) for record in records)
                    yield from filter(str.strip, texts)
                    continue
                with open_text(path) as file:
                    text = decode(path, file.read())
                parts = self._split(text)
                plain, separated = plain + 1, separated or len(parts) > 1
                yield from filter(str.strip, parts)
        if self.separator is not None and not separated:
            raise HeadlessError(
                f"the document separator {self.separator!r} is in none of the {plain} text "
                f"files of {', '.join(self.inputs)}: give another --document_separator, or leave "
                "it out"
            )

    def raw(self) -> Iterator[bytes]:
        """What is weighed and hashed of each document."""
        return (text.encode("utf-8") for text in self)

    def _split(self, text: str) -> list[str]:
        if self.separator is None:
            return [text]
        end = "\n" if "\r" not in text else LINE_END
        lines = self.separator.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        first, *others = map(re.escape, lines)
        blank = r"[^\S\r\n]*"  # what may stand on a blank line
        inner = [line or blank for line in others[:-1]]
        return re.split(end.join([first, *inner, *others[-1:]]), text)

    def _read_dataset(self, name: str) -> Iterator[str]:
        loaded = load_named(name, self.split)
        if self.text_field not in loaded.column_names:
            raise no_field(self.text_field, loaded.column_names, name)
        records = loaded.select_columns([self.text_field])
        yield from filter(str.strip, (self._text(record, name) for record in records))

    def _text(self, fields: dict[str, Any], place: str) -> str:
        if self.text_field not in fields:
            raise no_field(self.text_field, list(fields), place)
        text = fields[self.text_field]
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
