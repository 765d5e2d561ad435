"""Text to a prepared dataset: scan, split, tokenizer, token streams, manifest.

Two passes over the text. The first weighs every document, so that the split can be chosen by
bytes; the second tokenises. Nothing looks finished before it is: all is made in a directory
beside the output, which is renamed at the end.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tokenizers import Tokenizer

from headless.data.documents import Documents
from headless.data.stream import (
    COUNTS,
    FORMAT,
    SPLITS,
    TOKENIZER,
    Manifest,
    documents_file,
    sha256_of,
    token_dtype,
    tokens_file,
)
from headless.data.tokenizer import (
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    train_tokenizer,
    use_threads,
)
from headless.errors import HeadlessError

BATCH_BYTES = 4_000_000  # text that is tokenised at a time
Report = Callable[[str, int, int], None]  # phase, bytes done, bytes in all (0: not known)


@dataclass(frozen=True)
class Scan:
    """What the first pass found: for every document its size in bytes and a hash of its text."""

    sizes: np.ndarray  # int64 [documents]
    hashes: np.ndarray  # uint64 [documents]

    @property
    def total_bytes(self) -> int:
        """Bytes of all documents."""
        return int(self.sizes.sum())


def scan(documents: Documents, seed: int, report: Report) -> Scan:
    """Weigh every document.

    Raises:
        HeadlessError: fewer than two documents.
    """
    key = seed.to_bytes(8, "little", signed=True)
    sizes, hashes, done = [], [], 0
    for text in documents:
        raw = text.encode("utf-8")
        sizes.append(len(raw))
        digest = hashlib.blake2b(raw, digest_size=8, key=key).digest()
        hashes.append(int.from_bytes(digest, "little"))
        done += len(raw)
        report("reading", done, 0)
    if len(sizes) < 2:
        found = "no text" if not sizes else "one document"
        raise HeadlessError(
            f"{', '.join(documents.inputs)}: {found}, but a train and a validation split need two "
            "documents: give more files, or split a text with --document_separator"
        )
    return Scan(np.array(sizes, dtype=np.int64), np.array(hashes, dtype=np.uint64))


def choose_validation(found: Scan, fraction: float) -> np.ndarray:
    """Which documents are held out: bool [documents].

    In the order of their hashes, documents are taken until they hold `fraction` of all bytes. The
    order is a function of seed and text alone, so files may come in any order, and copies of a
    text fall on the same side.

    Raises:
        HeadlessError: all documents are copies of one text.
    """
    order = np.lexsort((np.arange(len(found.hashes)), found.hashes))
    reached = np.searchsorted(np.cumsum(found.sizes[order]), fraction * found.total_bytes)
    last = found.hashes[order[min(int(reached), len(order) - 1)]]
    held_out = found.hashes <= last
    if held_out.all():
        held_out = found.hashes < found.hashes.max()  # training needs a document too
    if not held_out.any():
        raise HeadlessError("all documents hold the same text: there is nothing to hold out")
    return held_out


class _SplitWriter:
    """Appends documents to the token file of a split."""

    def __init__(self, directory: Path, split: str, dtype: np.dtype) -> None:
        self.directory = directory
        self.split = split
        self.dtype = dtype
        self.offsets: list[int] = []
        self.tokens = 0
        self.bytes = 0
        self._file: BinaryIO = open(directory / tokens_file(split), "wb")  # noqa: SIM115

    def append(self, ids: np.ndarray, num_bytes: int) -> None:
        """One document with its EOS."""
        self.offsets.append(self.tokens)
        self.tokens += len(ids)
        self.bytes += num_bytes
        self._file.write(ids.astype(self.dtype).tobytes())

    def close(self) -> dict[str, int]:
        """Flush to the disk; returns what the manifest says of the split."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        offsets = np.array(self.offsets, dtype="<i8")
        np.save(self.directory / documents_file(self.split), offsets)
        return {"documents": len(self.offsets), "tokens": self.tokens, "bytes": self.bytes}


def _batches(documents: Documents) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_BYTES:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def write_streams(
    documents: Documents,
    held_out: np.ndarray,
    sizes: np.ndarray,
    tokenizer: Tokenizer,
    eos_token_id: int,
    vocab_size: int,
    directory: Path,
    report: Report,
) -> dict[str, dict[str, int]]:
    """The second pass: tokens of both splits and the unigram counts of the training split.

    Returns:
        Documents, tokens and bytes of each split.

    Raises:
        HeadlessError: the text changed since the first pass, or a token is out of range.
    """
    dtype = token_dtype(vocab_size)
    writers = {split: _SplitWriter(directory, split, dtype) for split in SPLITS}
    count_V = np.zeros(vocab_size, dtype=np.int64)
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" inside a text is text
    done, index, total = 0, 0, int(sizes.sum())
    for texts in _batches(documents):
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            if index >= len(sizes):
                raise HeadlessError("the text grew while it was read: prepare it again")
            ids = np.array([*encoding.ids, eos_token_id], dtype=np.int64)
            if ids.max() >= vocab_size:
                raise HeadlessError(
                    f"the tokenizer gave id {ids.max()}, but its vocabulary has {vocab_size}"
                )
            split = "validation" if held_out[index] else "train"
            writers[split].append(ids, int(sizes[index]))
            if split == "train":
                count_V += np.bincount(ids, minlength=vocab_size)
            done += int(sizes[index])
            index += 1
        report("tokenising", done, total)
    if index != len(sizes):
        raise HeadlessError("the text shrank while it was read: prepare it again")
    np.save(directory / COUNTS, count_V.astype("<i8"))
    return {split: writer.close() for split, writer in writers.items()}


def _make_tokenizer(
    documents: Documents,
    found: Scan,
    held_out: np.ndarray,
    vocab_size: int,
    tokenizer_bytes: int,
    report: Report,
) -> Any:
    """BPE from the training documents, or from a sample of them chosen by their hashes."""
    train_bytes = int(found.sizes[~held_out].sum())
    share = min(1.0, tokenizer_bytes / max(1, train_bytes))
    # The hash decided the split by its order; its low bits are free for the sample.
    sampled = (found.hashes & np.uint64(0xFFFF)) < np.uint64(round(share * 0x10000))
    chosen = ~held_out & (sampled if sampled[~held_out].any() else True)
    total = int(found.sizes[chosen].sum())

    def texts() -> Iterator[str]:
        done = 0
        for text, take, size in zip(documents, chosen, found.sizes, strict=False):
            if take:
                yield text
                done += int(size)
                report("training the tokenizer", done, total)

    return as_fast_tokenizer(train_tokenizer(texts(), vocab_size))


def prepare(
    input: str | list[str],
    output: Path,
    vocab_size: int = 32768,
    tokenizer: str | None = None,
    text_field: str = "text",
    document_separator: str | None = None,
    split: str = "train",
    validation_fraction: float = 0.01,
    seed: int = 0,
    num_workers: int | None = None,
    tokenizer_bytes: int = 2_000_000_000,
    overwrite: bool = False,
    report: Report = lambda phase, done, total: None,
) -> Manifest:
    """Make a prepared dataset; see `headless.cli.prepare` for the arguments.

    Raises:
        HeadlessError: bad input (see the functions above), or `output` exists.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise HeadlessError(
            f"{output} exists: choose another --output, or replace it with --overwrite true"
        )
    if not 0.0 < validation_fraction < 1.0:
        raise HeadlessError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    inputs = [input] if isinstance(input, str) else list(input)
    documents = Documents(inputs, text_field, document_separator, split)
    use_threads(num_workers or os.cpu_count() or 1)
    fast = load_tokenizer(tokenizer) if tokenizer else None

    found = scan(documents, seed, report)
    held_out = choose_validation(found, validation_fraction)
    if fast is None:
        fast = _make_tokenizer(documents, found, held_out, vocab_size, tokenizer_bytes, report)
    eos_token_id, size = end_of_document(fast), max(fast.get_vocab().values()) + 1
    assert eos_token_id is not None

    partial = _fresh_partial(output)
    try:
        fast.save_pretrained(partial / TOKENIZER)
        splits = write_streams(
            documents,
            held_out,
            found.sizes,
            fast.backend_tokenizer,
            eos_token_id,
            size,
            partial,
            report,
        )
        manifest = Manifest(
            format=FORMAT,
            vocab_size=size,
            eos_token_id=eos_token_id,
            dtype=token_dtype(size).str,
            tokenizer_sha256=sha256_of(partial / TOKENIZER / "tokenizer.json"),
            seed=seed,
            validation_fraction=validation_fraction,
            splits=splits,
            sources=inputs,
            files={
                str(path.relative_to(partial)): {
                    "sha256": sha256_of(path),
                    "bytes": path.stat().st_size,
                }
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        )
        manifest.write(partial)
        _move_into_place(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _fresh_partial(output: Path) -> Path:
    """An empty directory beside the output; what killed runs left there is cleared away."""
    import psutil

    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.partial-"
    for left in output.parent.glob(f"{prefix}*"):
        owner = left.name.removeprefix(prefix)
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    partial = output.parent / f"{prefix}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def _move_into_place(partial: Path, output: Path) -> None:
    """Rename; what is there now goes only when the new one is complete."""
    if output.exists():
        old = output.parent / f".{output.name}.old-{os.getpid()}"
        os.replace(output, old)
        os.replace(partial, output)
        shutil.rmtree(old)
    else:
        os.replace(partial, output)
