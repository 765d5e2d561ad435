"""`headless prepare`: text to tokenizer and token stream."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headless.cli.parsing import run
from headless.data.prepare import prepare as prepare_dataset
from headless.data.stream import SPLITS


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
) -> None:
    """Turn text into a tokenizer and a memory-mapped token stream.

    Args:
        input: txt, jsonl and parquet files, directories of them, or a Hugging Face datasets name
            ("name" or "name:config"); several as [a, b].
        output: the directory to make.
        vocab_size: of the byte-level BPE tokenizer that is trained on the training documents.
        tokenizer: an existing fast tokenizer instead: directory, tokenizer.json or hub name.
        text_field: the field or column that holds the text (jsonl, parquet, datasets).
        document_separator: splits a txt file into documents; otherwise a file is a document.
        split: which split of a datasets name.
        validation_fraction: share of the bytes that is held out, by whole documents.
        seed: decides which documents.
        num_workers: threads of the tokenizer; all cores by default.
        tokenizer_bytes: train the tokenizer on a sample of about this much text.
        overwrite: replace an existing output once the new one is complete.
    """
    options = dict(locals())
    begin = time.perf_counter()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        tasks: dict[str, int] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total or None)
            progress.update(tasks[phase], completed=done)  # type: ignore[arg-type]

        manifest = prepare_dataset(**options, report=report)
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


def main(arguments: list[str]) -> None:
    """The command."""
    run(prepare, arguments, "prepare")
