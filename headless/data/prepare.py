"""Text, or item ids, to a prepared dataset: scan, split, tokenizer, token streams, manifest.

Two passes over the text. The first weighs every document, so that the split can be chosen by
bytes; the second tokenises. All is made in a directory beside the output, renamed at the end.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.anchors import anchors_of
from headless.data.bpe import train_tokenizer
from headless.data.documents import Documents, in_batches
from headless.data.encode import Streams, encode_documents, write_streams
from headless.data.encoders import Encoder, FastEncoder, UnfitError
from headless.data.items import ItemSequences
from headless.data.stream import FORMAT, MANIFEST, TOKENIZER, Manifest, TokenDataset, token_dtype
from headless.data.superwords import SUPERWORD_BYTES, add_superwords, check_superwords
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
from headless.isolation import isolated, usable_cores
from headless.progress import Display, Report

OUTPUT: dict[str, Any] = {  # how `new_directory` knows what may be replaced
    "option": "--output",
    "is_ours": lambda path: (path / MANIFEST).is_file(),
    "kind": "prepared dataset",
    "old": "remove",
}


@dataclass(frozen=True)
class Scan:
    """Size in bytes of every document, and a hash of its text; of a sequence those of its ids."""

    sizes: np.ndarray  # int64 [documents]
    hashes: np.ndarray  # uint64 [documents]


def scan(documents: Documents | ItemSequences, seed: int, report: Report) -> Scan:
    """The first pass over the text: there must be two documents."""
    if not -(2**63) <= seed < 2**63:
        raise HeadlessError(f"seed must fit into 64 bits, got {seed}")
    key = seed.to_bytes(8, "little", signed=True)
    sizes, hashes, done = [], [], 0
    for batch in in_batches(documents.raw()):
        for raw in batch:
            sizes.append(len(raw))
            hashes.append(hashlib.blake2b(raw, digest_size=8, key=key).digest())
            done += len(raw)
        report("reading", done, 0)
    if len(sizes) < 2:
        unit = documents.unit
        amount = f"one {unit}" if sizes else "no text" if unit == "document" else f"no {unit}"
        raise HeadlessError(
            f"{', '.join(documents.inputs)}: {amount}, but a train and a validation split need two "
            f"{unit}s: {documents.how_to_give_more}"
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
    superwords_from: int | None,
    tokenizer_bytes: int,
    directory: Path,
    report: Report,
) -> Any:
    """BPE from the training documents, or from a sample of them chosen by their hashes."""
    train_bytes = int(scanned.sizes[~held_out].sum())

    def texts(size: int, phase: str) -> Iterator[str]:
        share = min(1.0, size / max(1, train_bytes))
        # The hash decided the split by its order; its low bits are free for the sample.
        low_bits = scanned.hashes & np.uint64(0xFFFF)
        limit = max(round(share * 0x10000), int(low_bits[~held_out].min(initial=0xFFFF)) + 1)
        chosen = ~held_out & (low_bits < np.uint64(limit))  # one at least
        done, total = 0, int(scanned.sizes[chosen].sum())
        for text, take, bytes_of in zip(documents, chosen, scanned.sizes, strict=False):
            if take:
                yield text
                done += int(bytes_of)
                report(phase, done, total)

    words = texts(tokenizer_bytes, "training the tokenizer")
    tokenizer = train_tokenizer(words, superwords_from or vocab_size, directory)
    if superwords_from is not None:
        among = texts(min(tokenizer_bytes, SUPERWORD_BYTES), "looking for superwords")
        tokenizer = add_superwords(tokenizer, among, vocab_size)
    return as_fast_tokenizer(tokenizer)


@isolated()
def prepare(
    input: str | list[str],
    output: Path,
    vocab_size: int = 32768,
    tokenizer: str | None = None,
    mask_token: str | None = None,
    text_field: str = "text",
    item_field: str | None = None,
    num_items: int | None = None,
    document_separator: str | None = None,
    split: str = "train",
    validation_fraction: float = 0.01,
    seed: int = 0,
    num_workers: int | None = None,
    tokenizer_bytes: int = 2_000_000_000,
    superwords_from: int | None = None,
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
        item_field: the field or column that holds a list of item ids, integers from 0 on, instead
            of text: each list is a sequence, and there is no tokenizer. The id after the last
            item's ends a sequence.
        num_items: how many items there are; the largest id + 1 by default.
        document_separator: splits a txt or md file, otherwise one document: \\n is any line end,
            '\\n\\n' a blank line, with or without blanks on it.
        split: which split of a datasets name.
        validation_fraction: share of the bytes, or items, that is held out, by whole documents or
            sequences.
        seed: decides which documents.
        num_workers: threads of the tokenizer; all cores by default.
        tokenizer_bytes: train the tokenizer on a sample of about this much text, which gigatoken
            needs as a file beside the output meanwhile.
        superwords_from: how many tokens are learnt within words; those after them go across blanks
            ("SuperBPE", Liu et al. 2025), learnt on about 100 MB of the text. None: all are within.
        overwrite: replace an existing output once the new one is complete.
        progress: show it, or a function that gets (phase, bytes done, bytes in all or 0).
    """
    _check(validation_fraction, num_workers, tokenizer_bytes)
    others = {"tokenizer": tokenizer, "mask_token": mask_token, "vocab_size": vocab_size != 32768}
    others["superwords_from"] = superwords_from is not None
    _check_items(item_field, num_items, others | {"document_separator": document_separator})
    if superwords_from is not None:
        check_superwords(superwords_from, vocab_size, tokenizer)
    inputs = [str(i) for i in ([input] if isinstance(input, str | Path) else input)]
    documents: Documents | ItemSequences
    if item_field is None:
        documents = Documents(inputs, text_field, _unescape(document_separator), split)
    else:
        documents = ItemSequences(inputs, item_field, num_items, split)
    use_threads(num_workers or usable_cores())
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
        if isinstance(documents, ItemSequences):
            values = _write_items(partial, documents, scanned.sizes, held_out, display)
        else:
            if fast is None:
                size = vocab_size - bool(mask_token)
                fast = _train(
                    *(documents, scanned, held_out, size, superwords_from),
                    *(tokenizer_bytes, partial, display.report),
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


def _check(validation_fraction: float, num_workers: int | None, tokenizer_bytes: int) -> None:
    if tokenizer_bytes < 1:
        raise HeadlessError(f"tokenizer_bytes must be at least 1, got {tokenizer_bytes}")
    if not 0.0 < validation_fraction < 1.0:
        raise HeadlessError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if num_workers is not None and num_workers < 1:
        raise HeadlessError(f"num_workers must be at least 1, got {num_workers}")


def _check_items(item_field: str | None, num_items: int | None, of_text: dict[str, Any]) -> None:
    if item_field is None:
        if num_items is not None:
            raise HeadlessError("num_items goes with --item_field, which names the lists of ids")
        return
    if given := [name for name, value in of_text.items() if value]:
        raise HeadlessError(f"{given[0]} is of text, and --item_field of item ids: leave one out")
    if num_items is not None and not 1 <= num_items < 2**32:
        raise HeadlessError(f"num_items must be from 1 to {2**32 - 1}, got {num_items}")


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
        encoded = encode_documents(documents, encoder, eos_token_id)
        return write_streams(encoded, held_out, sizes, vocab_size, directory, display.report)

    try:
        streams = write(FastEncoder(tokenizer.backend_tokenizer))
    except UnfitError as reason:
        display.say(f"the tokenizers library encodes: {reason}")
        streams = write(Encoder(tokenizer.backend_tokenizer))
    values = _values(directory, documents, vocab_size, eos_token_id)
    return values | {
        "tokenizer_sha256": values["files"][f"{TOKENIZER}/tokenizer.json"]["sha256"],
        "splits": streams.splits,
        "inexact_share": streams.inexact_share,
    }


def _write_items(
    directory: Path,
    sequences: ItemSequences,
    sizes: np.ndarray,
    held_out: np.ndarray,
    display: Display,
) -> dict[str, Any]:
    """Streams of item ids, without any text; what the manifest says of them."""
    end = sequences.catalogue(int(sizes.sum()) // 8)
    encoded, report = sequences.encoded(end), display.report
    splits = write_streams(encoded, held_out, sizes, end + 1, directory, report).splits
    return _values(directory, sequences, end + 1, end) | {
        "tokenizer_sha256": None,
        "splits": {name: numbers | {"bytes": 0} for name, numbers in splits.items()},
    }


def _values(
    directory: Path, documents: Documents | ItemSequences, vocab_size: int, eos_token_id: int
) -> dict[str, Any]:
    """What the manifest says of both kinds of data."""
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
        "sources": documents.inputs,
        "files": files,
    }
