"""`headless prepare`: text to tokenizer and token stream, or item ids to one without."""

import sys
import time

from rich.console import Console
from rich.table import Table

import headless
from headless.cli.parsing import options_from


def main(arguments: list[str]) -> None:
    options = options_from("prepare", arguments)
    begin = time.perf_counter()
    prepared = headless.prepare(**options, progress=True)
    seconds, manifest = time.perf_counter() - begin, prepared.manifest
    if manifest.tokenizer_sha256 is None:
        table = Table("split", "sequences", "items and ends")
        for name, numbers in manifest.splits.items():
            table.add_row(name, f"{numbers['documents']:,}", f"{numbers['tokens']:,}")
        size = f"{manifest.vocab_size - 1:,} items, {seconds:.1f} s"
    else:
        table = Table("split", "documents", "tokens", "bytes", "bytes per token")
        for name, numbers in manifest.splits.items():
            values = [f"{numbers[key]:,}" for key in ("documents", "tokens", "bytes")]
            table.add_row(name, *values, f"{manifest.bytes_per_token(name):.2f}")
        megabytes = sum(numbers["bytes"] for numbers in manifest.splits.values()) / 1e6
        rate = f"{megabytes / seconds:.1f} MB/s"
        size = f"vocabulary {manifest.vocab_size:,}, {seconds:.1f} s, {rate}"
    Console().print(table)
    print(f"{prepared.path}: {size}")
    if manifest.anchors:
        scores = (f"{name} {nats:.3f}" for name, nats in manifest.anchors["nll"].items())
        print(f"to beat, in nats a token of validation: {', '.join(scores)}")
    if manifest.caution:
        print(f"headless: {manifest.caution}", file=sys.stderr)
