"""The second pass over the text: from documents to the token streams of both splits."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from headless.data.documents import Documents, in_batches
from headless.data.encoders import Encoder
from headless.data.stream import COUNTS, SPLITS, documents_file, token_dtype, tokens_file
from headless.errors import HeadlessError
from headless.progress import Report


class Streams(NamedTuple):
    splits: dict[str, dict[str, int]]  # documents, tokens and bytes of each
    inexact_share: float  # of the bytes, in documents that their tokens do not give back


class _SplitWriter:
    def __init__(self, directory: Path, split: str, dtype: np.dtype) -> None:
        self.directory = directory
        self.split = split
        self.dtype = dtype
        self.offsets: list[np.ndarray] = []
        self.tokens = 0
        self.bytes = 0
        self._file: BinaryIO = open(directory / tokens_file(split), "wb")  # noqa: SIM115

    def append(self, ids: np.ndarray, lengths: np.ndarray, num_bytes: int) -> None:
        """Documents: all their ids, one after the other, and how many of these each has."""
        self.offsets.append(self.tokens + np.cumsum(lengths) - lengths)
        self.tokens += len(ids)
        self.bytes += num_bytes
        self._file.write(ids.astype(self.dtype).tobytes())

    def close(self) -> dict[str, int]:
        """Flush to the disk; returns what the manifest says of the split."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        offsets = np.concatenate(self.offsets).astype("<i8")
        np.save(self.directory / documents_file(self.split), offsets)
        return {"documents": len(offsets), "tokens": self.tokens, "bytes": self.bytes}


class Encoded(NamedTuple):
    """A batch of documents as token ids, one after the other, each with its EOS."""

    ids: np.ndarray  # int64
    lengths: np.ndarray  # int64, of each
    exact: np.ndarray  # bool, whether the ids of each give its text back


def encode_documents(
    documents: Documents, encoder: Encoder, eos_token_id: int
) -> Iterator[Encoded]:
    """Token ids, a batch of documents at a time, decoded and compared where text may be lost.

    The next batch is encoded, without the interpreter's lock, while the caller uses this one.
    """

    def encode(texts: list[str]) -> Encoded:
        found = encoder(texts)
        lengths = found.lengths + 1
        ids = np.full(lengths.sum(), eos_token_id, dtype=np.int64)
        is_end = np.zeros(len(ids), dtype=bool)
        is_end[np.cumsum(lengths) - 1] = True
        ids[~is_end] = found.ids
        return Encoded(ids, lengths, encoder.exact(texts, found))

    with ThreadPoolExecutor(max_workers=1) as ahead:
        pending = None
        for texts in in_batches(documents):
            following = ahead.submit(encode, texts)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def write_streams(
    documents: Documents,
    held_out: np.ndarray,
    sizes: np.ndarray,
    encoder: Encoder,
    eos_token_id: int,
    vocab_size: int,
    directory: Path,
    report: Report,
) -> Streams:
    """Write the tokens of both splits, and the unigram counts of the training split."""
    dtype = token_dtype(vocab_size)
    writers = {split: _SplitWriter(directory, split, dtype) for split in SPLITS}
    count_V = np.zeros(vocab_size, dtype=np.int64)
    begin, done, total, inexact = 0, 0, int(sizes.sum()), 0
    for ids, lengths, exact in encode_documents(documents, encoder, eos_token_id):
        end = begin + len(lengths)
        if end > len(sizes):
            raise HeadlessError("the text grew while it was read: prepare it again")
        if ids.max() >= vocab_size:
            raise HeadlessError(
                f"the tokenizer gave id {ids.max()}, but its vocabulary has {vocab_size}"
            )
        for split, chosen in (("train", ~held_out[begin:end]), ("validation", held_out[begin:end])):
            part = ids[np.repeat(chosen, lengths)]
            writers[split].append(part, lengths[chosen], int(sizes[begin:end][chosen].sum()))
            if split == "train":
                count_V += np.bincount(part, minlength=vocab_size)
        done += int(sizes[begin:end].sum())
        inexact += int(sizes[begin:end][~exact].sum())
        begin = end
        report("tokenising", done, total)
    if begin != len(sizes):
        raise HeadlessError("the text shrank while it was read: prepare it again")
    np.save(directory / COUNTS, count_V.astype("<i8"))
    return Streams({split: writer.close() for split, writer in writers.items()}, inexact / total)
