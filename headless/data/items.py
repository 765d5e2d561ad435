"""Sequences of item ids, which are no text: a field of JSON and Parquet records holds each.

Items are 0 ... V - 2. The id V - 1 ends each sequence, as EOS ends a document: it stands before the
next one, is predicted like an item, and fills up blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headless.data.documents import in_batches
from headless.data.encode import Encoded, with_ends
from headless.data.encoders import Ids
from headless.data.records import Record, read_records
from headless.data.text_files import find_files
from headless.errors import HeadlessError

SPARSE = 10  # more ids for each item that was read are no numbering
MOST = 2**32 - 2  # the largest id: one more ends sequences, in 32 bits


@dataclass
class ItemSequences:
    """The sequences of some inputs, in a fixed order; can be iterated any number of times."""

    inputs: Sequence[str]  #: as those of `Documents`; .txt and .md files hold no lists
    field: str  #: the field or column with a list of integers from 0 on
    num_items: int | None = None  #: how many there are; None: the largest id + 1
    split: str = "train"  #: which split of a `datasets` name
    largest: int = -1  #: the largest id that was read so far

    unit = "sequence"
    how_to_give_more = "give more of them"

    def left_out(self) -> list[Any]:
        """What lies in the directories among the inputs and is not read, with the reasons."""
        listings = (find_files(name, self.field) for name in self.inputs)
        return [entry for listing in listings if listing is not None for entry in listing.left_out]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The ids of each sequence, int64."""
        for name in self.inputs:
            for record in read_records(name, self.split, only=self.field):
                yield self._ids(record)

    def raw(self) -> Iterator[bytes]:
        """What is weighed and hashed of each sequence."""
        return (ids.astype("<i8").tobytes() for ids in self)

    def encoded(self, end: int) -> Iterator[Encoded]:
        """Sequences with their ends, a batch at a time."""
        for batch in in_batches(self):
            lengths = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
            exact = np.ones(len(batch), dtype=bool)
            yield with_ends(Ids(np.concatenate(batch), lengths), end, exact)

    def catalogue(self, read: int) -> int:
        """How many items there are, once so many ids were read: as many as were asked for, else the
        largest id + 1."""
        if self.num_items is not None:
            return self.num_items
        if self.largest >= SPARSE * max(read, 1000):
            raise HeadlessError(
                f"the largest item id is {self.largest} in {read} ids: number the items from 0 on, "
                "or say how many there are with --num_items"
            )
        return self.largest + 1

    def _ids(self, record: Record) -> np.ndarray:
        value = record.fields.get(self.field)
        if self.field not in record.fields:
            record.field(self.field)  # says what there is
        complaint = f"{record.place}: the field {self.field!r}"
        if not isinstance(value, list):
            raise HeadlessError(f"{complaint} holds {type(value).__name__}, not a list of item ids")
        if not value:
            raise HeadlessError(f"{complaint} is an empty list: leave the sequence out")
        for item in value:
            if type(item) is not int or not 0 <= item <= MOST:
                raise HeadlessError(
                    f"{complaint} holds {item!r}: item ids are integers from 0 to {MOST}"
                )
        ids = np.array(value, dtype=np.int64)
        self.largest = max(self.largest, int(ids.max()))
        if self.num_items is not None and self.largest >= self.num_items:
            raise HeadlessError(
                f"{complaint} holds the item {self.largest}, but with --num_items {self.num_items} "
                f"they end at {self.num_items - 1}"
            )
        return ids
