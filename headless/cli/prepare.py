"""`headless prepare`: text to tokenizer and token stream."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from headless.cli.parsing import run
from headless.data.documents import Documents
from headless.data.prepare import prepare as prepare_dataset
from headless.data.stream import SPLITS
from headless.data.text_files import describe

REDRAW_BYTES = 500_000  # a corpus of short documents reports more often than anyone looks
LINE_SECONDS = 10.0  # between two lines where nobody watches a bar


class Display:
    """Progress on standard error: bars in a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.live = console.is_terminal
        self.phase = ""
        self.task = TaskID(0)
        self.done = self.shown = 0
        self.printed = 0.0

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def report(self, phase: str, done: int, total: int) -> None:
        """See `headless.data.split.Report`."""
        if phase != self.phase:
            self._finish()
            self.phase, self.shown, self.printed = phase, 0, -LINE_SECONDS
            self.task = self.bars.add_task(phase, total=total or None)
        elif done - self.shown < REDRAW_BYTES and done != total:
            self.done = done
            return
        self.done = self.shown = done
        self.bars.update(self.task, completed=done)
        if not self.live and time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            size = f" of {total / 1e6:.1f}" if total else ""
            print(f"{phase}: {done / 1e6:.1f}{size} MB", file=sys.stderr, flush=True)

    def _finish(self) -> None:
        """A phase whose end nobody knew has ended."""
        if self.phase:
            self.bars.update(self.task, total=self.done, completed=self.done)


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
) -> None:
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
    """
    options = dict(locals())
    inputs = [input] if isinstance(input, str) else input
    if left_out := Documents(inputs, text_field).left_out():
        print(f"headless: {describe(left_out)}", file=sys.stderr)
    begin = time.perf_counter()
    with Display() as display:
        manifest = prepare_dataset(**options, report=display.report).manifest
    table = Table("split", "documents", "tokens", "bytes", "bytes per token")
    for name in SPLITS:
        numbers = manifest.splits[name]
        values = [f"{numbers[key]:,}" for key in ("documents", "tokens", "bytes")]
        table.add_row(name, *values, f"{manifest.bytes_per_token(name):.2f}")
    Console().print(table)
    seconds = time.perf_counter() - begin
    total_bytes = sum(numbers["bytes"] for numbers in manifest.splits.values())
    print(
        f"{output}: vocabulary {manifest.vocab_size:,}, {seconds:.1f} s, "
        f"{total_bytes / 1e6 / seconds:.1f} MB/s"
    )
    if manifest.caution:
        print(f"headless: {manifest.caution}", file=sys.stderr)


def main(arguments: list[str]) -> None:
    """The command."""
    run(prepare, arguments, "prepare")
