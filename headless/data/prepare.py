"""Text to a prepared dataset: scan, split, tokenizer, token streams, manifest.

Two passes over the text. The first weighs every document, so that the split can be chosen by
bytes; the second tokenises. All is made in a directory beside the output, renamed at the end.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.anchors import anchors_of
from headless.data.bpe import train_tokenizer
from headless.data.documents import Documents, in_batches
from headless.data.encode import Streams, write_streams
from headless.data.encoders import Encoder, FastEncoder, UnfitError
from headless.data.stream import FORMAT, MANIFEST, TOKENIZER, Manifest, TokenDataset, token_dtype
from headless.data.text_files import describe
from headless.data.tokenizer import (
    add_mask_token,
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    use_threads,
)
from headless.errors import HeadlessError
from headless.files import new_directory, sha256_of
from headless.isolation import isolated
from headless.progress import Display, Report

OUTPUT: dict[str, Any] = {  # how `new_directory` knows what may be replaced
    "option": "--output",
    "is_ours": lambda path: (path / MANIFEST).is_file(),
    "kind": "prepared dataset",
    "old": "remove",
}


@dataclass(frozen=True)
class Scan:
    """Size in bytes of every document, and a hash of its text."""

    sizes: np.ndarray  # int64 [documents]
    hashes: np.ndarray  # uint64 [documents]


def scan(documents: Documents, seed: int, report: Report) -> Scan:
    """The first pass over the text: there must be two documents."""
    if not -(2**63) <= seed < 2**63:
        raise HeadlessError(f"seed must fit into 64 bits, got {seed}")
    key = seed.to_bytes(8, "little", signed=True)
    sizes, hashes, done = [], [], 0
    for texts in in_batches(documents):
        for text in texts:
            raw = text.encode("utf-8")
            sizes.append(len(raw))
            hashes.append(hashlib.blake2b(raw, digest_size=8, key=key).digest())
            done += len(raw)
        report("reading", done, 0)
    if len(sizes) < 2:
        amount = "no text" if not sizes else "one document"
        raise HeadlessError(
            f"{', '.join(documents.inputs)}: {amount}, but a train and a validation split need two "
            "documents: give more files, or split a text with --document_separator"
        )
    return Scan(np.array(sizes, dtype=np.int64), np.frombuffer(b"".join(hashes), "<u8"))


def choose_validation(scanned: Scan, fraction: float) -> np.ndarray:
    """Which documents are held out, bool [documents]: at least one, and not all.

    In the order of their hashes, documents are taken until they hold `fraction` of all bytes. The
    order is a function of seed and text alone, so files may come in any order, and copies of a
    text fall on the same side.
    """
    order = np.lexsort((np.arange(len(scanned.hashes)), scanned.hashes))
    reached = np.searchsorted(np.cumsum(scanned.sizes[order]), fraction * scanned.sizes.sum())
    last = scanned.hashes[order[min(int(reached), len(order) - 1)]]
    held_out = scanned.hashes <= last
    if held_out.all():
        held_out = scanned.hashes < scanned.hashes.max()  # training needs a document too
    if not held_out.any():
        raise HeadlessError("all documents hold the same text: there is nothing to hold out")
    return held_out


def _train(
    documents: Documents,
    scanned: Scan,
    held_out: np.ndarray,
    vocab_size: int,
    tokenizer_bytes: int,
    directory: Path,
    report: Report,
) -> Any:
    """BPE from the training documents, or from a sample of them chosen by their hashes."""
    train_bytes = int(scanned.sizes[~held_out].sum())
    share = min(1.0, tokenizer_bytes / max(1, train_bytes))
    # The hash decided the split by its order; its low bits are free for the sample.
    sampled = (scanned.hashes & np.uint64(0xFFFF)) < np.uint64(round(share * 0x10000))
    chosen = ~held_out & (sampled if sampled[~held_out].any() else True)
    total = int(scanned.sizes[chosen].sum())

    def texts() -> Iterator[str]:
        done = 0
        for text, take, size in zip(documents, chosen, scanned.sizes, strict=False):
            if take:
                yield text
                done += int(size)
                report("training the tokenizer", done, total)

    return as_fast_tokenizer(train_tokenizer(texts(), vocab_size, directory))


@isolated()
def prepare(
    input: str | list[str],
    output: Path,
    vocab_size: int = 32768,
    tokenizer: str | None = None,
    mask_token: str | None = None,
    text_field: str = "text",
    document_separator: str | None = None,
    split: str = "train",
    validation_fraction: float = 0.01,
    seed: int = 0,
    num_workers: int | None = None,
    tokenizer_bytes: int = 2_000_000_000,
    overwrite: bool = False,
    *,
    progress: bool | Report = False,
) -> TokenDataset:
    """Turn text into a tokenizer and a memory-mapped token stream.

    Args:
        input: txt, md, jsonl, json and parquet files (all but parquet also as .gz, .bz2, .xz or
            .zst), directories of them, or a Hugging Face datasets name ("name" or "name:config");
            several as [a, b]. What a directory holds besides is named and left out.
        output: the directory to make.
        vocab_size: of the byte-level BPE tokenizer that is trained on the training documents.
        tokenizer: an existing fast tokenizer instead: directory, tokenizer.json or hub name.
        mask_token: for masked language models, e.g. "[MASK]"; added where the tokenizer has none.
        text_field: the field or column that holds the text (jsonl, json, parquet, datasets).
        document_separator: splits a txt or md file, otherwise one document: \\n is any line end,
            '\\n\\n' a blank line, with or without blanks on it.
        split: which split of a datasets name.
        validation_fraction: share of the bytes that is held out, by whole documents.
        seed: decides which documents.
        num_workers: threads of the tokenizer; all cores by default.
        tokenizer_bytes: train the tokenizer on a sample of about this much text, which gigatoken
            needs as a file beside the output meanwhile.
        overwrite: replace an existing output once the new one is complete.
        progress: show it, or a function that gets (phase, bytes done, bytes in all or 0).
    """
    _check(validation_fraction, num_workers)
    inputs = [str(i) for i in ([input] if isinstance(input, str | Path) else input)]
    documents = Documents(inputs, text_field, _unescape(document_separator), split)
    use_threads(num_workers or os.cpu_count() or 1)
    output = Path(output)
    with (
        Display(progress, "MB") as display,
        new_directory(output, overwrite=overwrite, **OUTPUT) as partial,
    ):
        if left_out := documents.left_out():
            display.say(describe(left_out))
        fast = load_tokenizer(tokenizer) if tokenizer else None
        scanned = scan(documents, seed, display.report)
        held_out = choose_validation(scanned, validation_fraction)
        if fast is None:
            size = vocab_size - bool(mask_token)
            fast = _train(
                documents, scanned, held_out, size, tokenizer_bytes, partial, display.report
            )
        if mask_token:
            add_mask_token(fast, mask_token)
        values = _write(partial, documents, scanned.sizes, held_out, fast, display)
        values |= {"seed": seed, "validation_fraction": validation_fraction}
        reasons = Counter(reason for _, reason in left_out)
        manifest = Manifest(**values, left_out=dict(sorted(reasons.items())))
        anchors = anchors_of(TokenDataset(partial, manifest), fast, display.report)
        manifest = replace(manifest, anchors=anchors)
        manifest.write(partial)
    return TokenDataset(output, manifest)


def _check(validation_fraction: float, num_workers: int | None) -> None:
    if not 0.0 < validation_fraction < 1.0:
        raise HeadlessError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if num_workers is not None and num_workers < 1:
        raise HeadlessError(f"num_workers must be at least 1, got {num_workers}")


def _unescape(separator: str | None) -> str | None:
    return separator and separator.replace("\\n", "\n").replace("\\t", "\t")


def _write(
    directory: Path,
    documents: Documents,
    sizes: np.ndarray,
    held_out: np.ndarray,
    tokenizer: Any,
    display: Display,
) -> dict[str, Any]:
    """Tokenizer and token streams; what the manifest says of them."""
    tokenizer.save_pretrained(directory / TOKENIZER)
    eos_token_id, vocab_size = end_of_document(tokenizer), max(tokenizer.get_vocab().values()) + 1
    assert eos_token_id is not None

    def write(encoder: Encoder) -> Streams:
        places = eos_token_id, vocab_size, directory, display.report
        return write_streams(documents, held_out, sizes, encoder, *places)

    try:
        streams = write(FastEncoder(tokenizer.backend_tokenizer))
    except UnfitError as reason:
        display.say(f"the tokenizers library encodes: {reason}")
        streams = write(Encoder(tokenizer.backend_tokenizer))
    files = {
        path.relative_to(directory).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(path for path in directory.rglob("*") if path.is_file())
    }
    return {
        "format": FORMAT,
        "vocab_size": vocab_size,
        "eos_token_id": eos_token_id,
        "dtype": token_dtype(vocab_size).str,
        "tokenizer_sha256": files[f"{TOKENIZER}/tokenizer.json"]["sha256"],
        "splits": streams.splits,
        "sources": documents.inputs,
        "files": files,
        "inexact_share": streams.inexact_share,
    }
