"""How fast `headless prepare` is, beside what it is made of and what it could be made of.

    python scripts/bench_prepare.py [--input TEXT] [--separator '\\n\\n'] [--repeats 5]

Encoders take the same documents, in memory, in the same batches, with the same ranks, and their
result is thrown away: the tokenizers library's `encode_batch_fast`, gigatoken (`warm` has seen the
text before), tiktoken, each where it is installed. The disk reads the files and writes as much as
the streams take. Then the whole of `prepare` (scan, training, encoding, anchors) with gigatoken and
without it. All take turns, in one process. Processor seconds stand beside the wall clock: they tell
more where other work shares the cores, as the load says. Without --input: the demo's text.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarking import write
from tokenizers import Tokenizer

from headless.data.bpe import END_OF_TEXT, LETTERS
from headless.data.documents import Documents, in_batches
from headless.data.encoders import Encoder, FastEncoder, UnfitError
from headless.data.prepare import prepare
from headless.data.text_files import find_files, open_text
from headless.data.tokenizer import use_threads

DEMO = Path("data/demo-text")
# What the byte-level pre-tokenizer of the tokenizers library splits by.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds (all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def without_gigatoken() -> Iterator[None]:
    with mock.patch.dict(sys.modules, {"gigatoken": None}):
        yield


def tiktoken_of(tokenizer: Tokenizer, threads: int) -> Callable[[list[str]], Any] | None:
    """Encodes a batch with tiktoken by the ranks of a tokenizer that `prepare` trained."""
    try:
        import tiktoken
    except ImportError:
        return None
    byte_of = {letter: byte for byte, letter in LETTERS.items()}
    tokens = ((token, id) for token, id in tokenizer.get_vocab().items() if token != END_OF_TEXT)
    ranks = {bytes(byte_of[letter] for letter in token): id for token, id in tokens}
    made = tiktoken.Encoding("prepared", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: made.encode_ordinary_batch(texts, num_threads=threads)


def encoders_of(tokenizer: Tokenizer, batches: list[list[str]], threads: int) -> dict[str, Any]:
    """What each way does with all batches."""

    def all_by(encode: Callable[[list[str]], Any]) -> Callable[[], None]:
        def encode_all() -> None:
            for batch in batches:
                encode(batch)

        return encode_all

    plain = Encoder(tokenizer)
    ways = {
        "encode_batch_fast": all_by(
            lambda batch: tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        )
    }
    try:
        warm = FastEncoder(tokenizer)
        ways["gigatoken"] = lambda: all_by(FastEncoder(tokenizer)._encode)()
        ways["gigatoken warm"] = all_by(warm._encode)
        ways["gigatoken, checked"] = lambda: all_by(FastEncoder(tokenizer))()
        ways["gigatoken warm"]()
    except UnfitError as reason:
        print(reason, file=sys.stderr)
    if tiktoken := tiktoken_of(tokenizer, threads):
        some = batches[0][:100]
        ids = [id for text in tiktoken(some) for id in text]
        assert ids == plain(some).ids.tolist(), "tiktoken has other ids"
        ways["tiktoken"] = all_by(tiktoken)
    return ways


def disk_of(inputs: list[str], tokens: bytes, place: Path) -> dict[str, Callable[[], Any]]:
    def read() -> None:
        for name in inputs:
            listing = find_files(name)
            for path in listing.files if listing else []:
                with open_text(path) as file:
                    file.read()

    def write_tokens() -> None:
        with open(place / "tokens", "wb") as file:
            file.write(tokens)
            os.fsync(file.fileno())

    return {"disk, read": read, "disk, write": write_tokens}


def compare(
    inputs: list[str], separator: str | None, vocab_size: int, repeats: int, whole_repeats: int
) -> dict[str, Any]:
    """All in turn: every measurement, the medians, and the speeds."""
    threads = int(os.environ["RAYON_NUM_THREADS"])
    documents = Documents(inputs, separator=separator)
    batches = list(in_batches(documents))
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        place, options = Path(directory), {"vocab_size": vocab_size, "num_workers": threads}
        options["document_separator"] = separator
        prepared = prepare(inputs, place / "data", **options)
        tokenizer = Tokenizer.from_file(str(prepared.tokenizer_path / "tokenizer.json"))

        def whole() -> None:
            prepare(inputs, place / "data", **options, overwrite=True)

        def plain() -> None:
            with without_gigatoken():
                whole()

        tokens = (place / "data/train.bin").read_bytes()
        ways = encoders_of(tokenizer, batches, threads) | disk_of(inputs, tokens, place)
        for repeat in range(max(repeats, whole_repeats)):
            here = dict(ways) if repeat < repeats else {}
            if repeat < whole_repeats:
                here |= {"prepare": whole, "prepare without gigatoken": plain}
            for name, way in here.items():
                seconds.setdefault(name, []).append(measure(way))
                print(f"repeat {repeat + 1}: {name:<26} {seconds[name][-1][0]:.2f} s", flush=True)
        sizes = prepared.manifest.splits.values()
    megabytes = sum(split["bytes"] for split in sizes) / 1e6
    result: dict[str, Any] = {
        "documents": sum(split["documents"] for split in sizes),
        "megabytes": round(megabytes, 2),
        "vocab_size": vocab_size,
        "threads": threads,
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    for index, clock in enumerate(("wall", "processor")):
        times = {name: [round(pair[index], 3) for pair in pairs] for name, pairs in seconds.items()}
        medians = {name: statistics.median(values) for name, values in times.items()}
        result[f"{clock}_seconds"] = times
        result[f"{clock}_megabytes_per_second"] = {
            name: round(megabytes / max(median, 1e-3), 2) for name, median in medians.items()
        }
        for name, slow, fast in (
            ("encoding", "encode_batch_fast", "gigatoken"),
            ("encoding_to_tiktoken", "tiktoken", "gigatoken"),
            ("prepare", "prepare without gigatoken", "prepare"),
        ):
            if slow in medians and fast in medians:
                result[f"{clock}_ratio_{name}"] = round(medians[slow] / medians[fast], 2)
    return result


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", help="files or directories; the demo's text if none")
    parser.add_argument("--separator", help="splits txt files into documents (\\n\\n)")
    parser.add_argument("--vocab_size", type=int, default=32768)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole_repeats", type=int, default=2, help="of the whole of prepare")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/prepare.json"))
    options = parser.parse_args()
    use_threads(options.num_workers)
    if options.input is None:
        script = Path(__file__).with_name("demo_corpus.py")
        subprocess.run([sys.executable, str(script), str(DEMO)], check=True)
    separator = options.separator and options.separator.replace("\\n", "\n")
    inputs = options.input or [str(DEMO)]
    result = compare(inputs, separator, options.vocab_size, options.repeats, options.whole_repeats)
    write(options.output, {"result": result})
    print(json.dumps({k: v for k, v in result.items() if "_seconds" not in k}, indent=1))


if __name__ == "__main__":
    main()
