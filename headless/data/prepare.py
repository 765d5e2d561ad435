"""Text to a prepared dataset: scan, split, tokenizer, token streams, manifest.

Two passes over the text. The first weighs every document, so that the split can be chosen by
bytes; the second tokenises. Nothing looks finished before it is: all is made in a directory
beside the output, which is renamed at the end.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.documents import Documents
from headless.data.encode import write_streams
from headless.data.split import Scan, choose_validation, scan
from headless.data.stream import FORMAT, MANIFEST, TOKENIZER, Manifest, TokenDataset, token_dtype
from headless.data.text_files import describe
from headless.data.tokenizer import (
    add_mask_token,
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    train_tokenizer,
    use_threads,
)
from headless.errors import HeadlessError
from headless.files import new_directory
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.sums import sha256_of


def _make_tokenizer(
    documents: Documents,
    scanned: Scan,
    held_out: np.ndarray,
    vocab_size: int,
    tokenizer_bytes: int,
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

    return as_fast_tokenizer(train_tokenizer(texts(), vocab_size))


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
        mask_token: for masked language models, e.g. "[MASK]": the tokenizer gets this token (an
            existing one that has a mask token keeps its own).
        text_field: the field or column that holds the text (jsonl, json, parquet, datasets).
        document_separator: splits a txt or md file into documents (\\n is a line's end of any
            system, so that '\\n\\n' is a blank line, with or without blanks on it); otherwise a
            file is a document.
        split: which split of a datasets name.
        validation_fraction: share of the bytes that is held out, by whole documents.
        seed: decides which documents.
        num_workers: threads of the tokenizer; all cores by default.
        tokenizer_bytes: train the tokenizer on a sample of about this much text.
        overwrite: replace an existing output once the new one is complete.
        progress: show it, or a function that gets (phase, bytes done, bytes in all or 0).
    """
    output = Path(output)
    if not 0.0 < validation_fraction < 1.0:
        raise HeadlessError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if num_workers is not None and num_workers < 1:
        raise HeadlessError(f"num_workers must be at least 1, got {num_workers}")
    inputs = [str(i) for i in ([input] if isinstance(input, str | Path) else input)]
    if document_separator is not None:
        for written, meant in {"\\n": "\n", "\\t": "\t"}.items():
            document_separator = document_separator.replace(written, meant)
    documents = Documents(inputs, text_field, document_separator, split)
    use_threads(num_workers or os.cpu_count() or 1)
    with (
        Display(progress, "MB") as display,
        new_directory(
            output,
            option="--output",
            overwrite=overwrite,
            is_ours=lambda path: (path / MANIFEST).is_file(),
            kind="prepared dataset",
            old="remove",
        ) as partial,
    ):
        if left_out := documents.left_out():
            display.say(describe(left_out))
        fast = load_tokenizer(tokenizer) if tokenizer else None
        scanned = scan(documents, seed, display.report)
        held_out = choose_validation(scanned, validation_fraction)
        if fast is None:
            to_train = vocab_size - bool(mask_token)
            fast = _make_tokenizer(
                documents, scanned, held_out, to_train, tokenizer_bytes, display.report
            )
        if mask_token:
            add_mask_token(fast, mask_token)
        fast.save_pretrained(partial / TOKENIZER)
        eos_token_id, size = end_of_document(fast), max(fast.get_vocab().values()) + 1
        assert eos_token_id is not None
        backend = fast.backend_tokenizer
        streams = write_streams(
            documents, held_out, scanned.sizes, backend, eos_token_id, size, partial, display.report
        )
        manifest = Manifest(
            format=FORMAT,
            vocab_size=size,
            eos_token_id=eos_token_id,
            dtype=token_dtype(size).str,
            tokenizer_sha256=sha256_of(partial / TOKENIZER / "tokenizer.json"),
            seed=seed,
            validation_fraction=validation_fraction,
            splits=streams.splits,
            sources=inputs,
            files=_describe_files(partial),
            inexact_share=streams.inexact_share,
            left_out=dict(sorted(Counter(reason for _, reason in left_out).items())),
        )
        manifest.write(partial)
    return TokenDataset(output, manifest)


def _describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in files
    }
