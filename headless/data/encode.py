"""The second pass over the text: from documents to the token streams of both splits."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headless.data.documents import Documents, in_batches
from headless.data.encoders import Encoder, Ids
from headless.data.stream import COUNTS, SPLITS, documents_file, token_dtype, tokens_file
from headless.errors import HeadlessError
from headless.files import whole_file
from headless.progress import Report


class Streams(NamedTuple):
    splits: dict[str, dict[str, int]]  # documents, tokens and bytes of each
    inexact_share: float  # of the bytes, in documents that their tokens do not give back


class Encoded(NamedTuple):
    """A batch of documents as token ids, one after the other, each with its EOS."""

    ids: np.ndarray  # int64
    lengths: np.ndarray  # int64, of each
    exact: np.ndarray  # bool, whether the ids of each give its text back


def with_ends(found: Ids, eos_token_id: int, exact: np.ndarray) -> Encoded:
    """Each document with its EOS."""
    lengths = found.lengths + 1
    ids = np.full(lengths.sum(), eos_token_id, dtype=np.int64)
    is_end = np.zeros(len(ids), dtype=bool)
    is_end[np.cumsum(lengths) - 1] = True
    ids[~is_end] = found.ids
    return Encoded(ids, lengths, exact)


def encode_documents(
    documents: Documents, encoder: Encoder, eos_token_id: int
) -> Iterator[Encoded]:
    """Token ids, a batch of documents at a time, decoded and compared where text may be lost.

    The next batch is encoded, without the interpreter's lock, while the caller uses this one.
    """

    def encode(texts: list[str]) -> Encoded:
        found = encoder(texts)
        return with_ends(found, eos_token_id, encoder.exact(texts, found))

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
    encoded: Iterable[Encoded],
    held_out: np.ndarray,
    sizes: np.ndarray,
    vocab_size: int,
    directory: Path,
    report: Report,
) -> Streams:
    """Write the tokens of both splits, where their documents begin, and the unigram counts of the
    training split."""
    dtype = token_dtype(vocab_size)
    sides = {"train": ~held_out, "validation": held_out}
    count_V = np.zeros(vocab_size, dtype=np.int64)
    lengths_of, exact_of = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    begin, done, total = 0, 0, int(sizes.sum())
    with ExitStack() as stack:
        paths = {split: directory / tokens_file(split) for split in SPLITS}
        files = {split: stack.enter_context(whole_file(path)) for split, path in paths.items()}
        for ids, lengths, exact in encoded:
            end = begin + len(lengths)
            if end > len(sizes):
                raise HeadlessError("the text grew while it was read: prepare it again")
            if ids.max() >= vocab_size:
                raise HeadlessError(
                    f"the tokenizer gave id {ids.max()}, but its vocabulary has {vocab_size}"
                )
            for split, chosen in sides.items():
                part = ids[np.repeat(chosen[begin:end], lengths)]
                files[split].write(part.astype(dtype).tobytes())
                if split == "train":
                    count_V += np.bincount(part, minlength=vocab_size)
            lengths_of.append(lengths)
            exact_of.append(exact)
            done += int(sizes[begin:end].sum())
            begin = end
            report("tokenising", done, total)
    if begin != len(sizes):
        raise HeadlessError("the text shrank while it was read: prepare it again")
    np.save(directory / COUNTS, count_V.astype("<i8"))
    splits = {}
    for split, chosen in sides.items():
        lengths = np.concatenate(lengths_of)[chosen]
        np.save(directory / documents_file(split), (np.cumsum(lengths) - lengths).astype("<i8"))
        numbers = len(lengths), lengths.sum(), sizes[chosen].sum()
        splits[split] = dict(zip(("documents", "tokens", "bytes"), map(int, numbers), strict=True))
    return Streams(splits, int(sizes[~np.concatenate(exact_of)].sum()) / total)
