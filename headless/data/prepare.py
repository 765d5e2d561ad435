"""Text to a prepared dataset: scan, split, tokenizer, token streams, manifest.

Two passes over the text. The first weighs every document, so that the split can be chosen by
bytes; the second tokenises. Nothing looks finished before it is: all is made in a directory
beside the output, which is renamed at the end.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headless.data.documents import Documents
from headless.data.encode import write_streams
from headless.data.split import Report, Scan, choose_validation, scan
from headless.data.stream import FORMAT, MANIFEST, TOKENIZER, Manifest, sha256_of, token_dtype
from headless.data.tokenizer import (
    add_mask_token,
    as_fast_tokenizer,
    end_of_document,
    load_tokenizer,
    train_tokenizer,
    use_threads,
)
from headless.errors import HeadlessError

PARTIAL, OLD = "partial", "old"  # what the directories beside the output are


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
    mask_token: str | None = None,
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
    _clear_leftovers(output)
    _refuse_to_lose(output, overwrite)
    if not 0.0 < validation_fraction < 1.0:
        raise HeadlessError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if num_workers is not None and num_workers < 1:
        raise HeadlessError(f"num_workers must be at least 1, got {num_workers}")
    inputs = [input] if isinstance(input, str) else list(input)
    documents = Documents(inputs, text_field, document_separator, split)
    use_threads(num_workers or os.cpu_count() or 1)
    fast = load_tokenizer(tokenizer) if tokenizer else None

    partial = _make_partial(output)  # now: a place that cannot be written shows before the work
    try:
        found = scan(documents, seed, report)
        held_out = choose_validation(found, validation_fraction)
        if fast is None:
            to_train = vocab_size - bool(mask_token)
            fast = _make_tokenizer(documents, found, held_out, to_train, tokenizer_bytes, report)
        if mask_token:
            add_mask_token(fast, mask_token)
        fast.save_pretrained(partial / TOKENIZER)
        eos_token_id, size = end_of_document(fast), max(fast.get_vocab().values()) + 1
        assert eos_token_id is not None
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
            files=_describe_files(partial),
        )
        manifest.write(partial)
        _move_into_place(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Checksum and size of every file."""
    return {
        path.relative_to(directory).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _beside(output: Path, kind: str) -> Path:
    """A hidden name in the same directory that tells which process uses it."""
    return output.parent / f".{output.name}.{kind}-{os.getpid()}"


def _make_partial(output: Path) -> Path:
    """The directory that becomes the output.

    Raises:
        HeadlessError: it cannot be made there.
    """
    partial = _beside(output, PARTIAL)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise HeadlessError(f"{output} cannot be written: {error.strerror}") from error
    return partial


def _clear_leftovers(output: Path) -> None:
    """Remove what killed runs left beside the output; put back what one had moved away."""
    import psutil

    for kind in (PARTIAL, OLD):
        for left in sorted(output.parent.glob(f".{glob.escape(output.name)}.{kind}-*")):
            owner = left.name.rpartition("-")[2]
            in_use = not owner.isdigit() or psutil.pid_exists(int(owner))
            if in_use and owner != str(os.getpid()):
                continue
            if kind == OLD and not output.exists():
                os.replace(left, output)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _refuse_to_lose(output: Path, overwrite: bool) -> None:
    """Nothing is replaced without `overwrite`, and nothing but a prepared dataset with it."""
    if not output.exists():
        return
    if not overwrite:
        raise HeadlessError(
            f"{output} exists: choose another --output, or replace it with --overwrite true"
        )
    if not (output / MANIFEST).is_file():
        raise HeadlessError(
            f"{output} is not a prepared dataset (no {MANIFEST}), so it is not overwritten: choose "
            "another --output"
        )


def _move_into_place(partial: Path, output: Path) -> None:
    """Rename; what is there now goes only when the new one is complete."""
    if output.exists():
        old = _beside(output, OLD)
        os.replace(output, old)
        os.replace(partial, output)
        shutil.rmtree(old)
    else:
        os.replace(partial, output)
