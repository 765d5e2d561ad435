"""Cuts plain-text files into documents of about 20 kB: the corpus of docs/results.md.

    python scripts/prose_corpus.py DIRECTORY data/prose-text --limit gcide.txt=12000000

Reads every .txt of a directory in the order of its names and cuts it at blank lines into
documents, one JSON record each, so that `headless prepare` holds out documents of every source and
not whole sources. --limit takes only the first so many bytes of a file (a dictionary would
otherwise be a quarter of the prose).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

DOCUMENT_BYTES = 20_000


def documents(text: str, size: int) -> Iterator[str]:
    """Cut at the first blank line after `size` bytes, at the latest at a line's end after twice."""
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line.encode())
        if length >= (2 * size if line.strip() else size):
            yield "".join(lines)
            lines, length = [], 0
    if any(line.strip() for line in lines):
        yield "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", action="append", default=[], metavar="FILE=BYTES")
    options = parser.parse_args()
    limits = {name: int(size) for name, size in (limit.split("=") for limit in options.limit)}
    files = sorted(options.source.glob("*.txt"))
    unknown = sorted(set(limits) - {file.name for file in files})
    if not files or unknown:
        raise SystemExit(f"error: {options.source} has no {', '.join(unknown) or '.txt file'}")
    options.output.mkdir(parents=True, exist_ok=True)
    for file in files:
        text = file.read_bytes()[: limits.get(file.name)].decode(errors="ignore")
        count = 0
        with (options.output / f"{file.stem}.jsonl").open("w") as out:
            for document in documents(text, DOCUMENT_BYTES):
                out.write(json.dumps({"text": document}) + "\n")
                count += 1
        print(f"{file.name}: {len(text.encode()) / 1e6:.1f} MB in {count} documents")


if __name__ == "__main__":
    main()
