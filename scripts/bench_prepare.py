"""How fast `headless prepare` tokenises, beside the bare tokenizers library on the same text.

    python scripts/bench_prepare.py [--input TEXT] [--separator '\\n\\n'] [--repeats 5]

Ours is the whole second pass: text files in, token streams of both splits, document offsets and
unigram counts out. Bare is `encode_batch` (and `encode_batch_fast`, which leaves out the offsets of
characters) on the same documents, already in memory, in the same batches, with the same tokenizer
and threads, its result thrown away. They run in turn, several times in one process. A ratio is
bare seconds / our seconds: above 1 we are faster. Processor seconds stand beside the wall clock:
they tell more where other work shares the cores. Without --input: the demo's text.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarking import write

from headless.data.bpe import END_OF_TEXT, train_tokenizer
from headless.data.documents import Documents
from headless.data.encode import batch_documents, write_streams
from headless.data.prepare import choose_validation, scan
from headless.data.tokenizer import use_threads

DEMO = Path("data/demo-text")


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds (all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(documents: Documents, vocab_size: int, repeats: int) -> dict[str, Any]:
    """Bare and ours in turn; every measurement, and the medians of the ratios."""
    found = scan(documents, 0, lambda *progress: None)
    held_out = choose_validation(found, 0.01)
    tokenizer = train_tokenizer(documents, vocab_size)
    vocab_size, eos_token_id = tokenizer.get_vocab_size(), tokenizer.token_to_id(END_OF_TEXT)
    batches = list(batch_documents(documents))
    with tempfile.TemporaryDirectory() as directory:

        def bare(encode: Callable[..., Any]) -> None:
            for batch in batches:
                encode(batch, add_special_tokens=False)

        def ours() -> None:
            sizes, place, report = found.sizes, Path(directory), lambda *progress: None
            arguments = (sizes, tokenizer, eos_token_id, vocab_size, place, report)
            write_streams(documents, held_out, *arguments)

        ways: dict[str, Callable[[], None]] = {
            "encode_batch": lambda: bare(tokenizer.encode_batch),
            "encode_batch_fast": lambda: bare(tokenizer.encode_batch_fast),
            "ours": ours,
        }
        ours()  # warm: the tokenizer's cache of words, the disk's of files
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for repeat in range(repeats):
            for name in list(ways)[repeat % 3 :] + list(ways)[: repeat % 3]:
                seconds[name].append(measure(ways[name]))
                print(f"repeat {repeat + 1}: {name:<18} {seconds[name][-1][0]:.2f} s", flush=True)
    result: dict[str, Any] = {
        "documents": len(found.sizes),
        "megabytes": round(int(found.sizes.sum()) / 1e6, 2),
        "vocab_size": vocab_size,
        "threads": int(os.environ["RAYON_NUM_THREADS"]),
    }
    for clock, index in (("wall", 0), ("processor", 1)):
        times = {name: [round(pair[index], 3) for pair in seconds[name]] for name in ways}
        result[f"{clock}_seconds"] = times
        for name in ("encode_batch", "encode_batch_fast"):
            ratios = [a / b for a, b in zip(times[name], times["ours"], strict=True)]
            result[f"{clock}_ratio_to_{name}"] = round(statistics.median(ratios), 3)
    median = statistics.median(result["wall_seconds"]["ours"])
    result["megabytes_per_second"] = round(result["megabytes"] / median, 2)
    return result


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", help="files or directories; the demo's text if none")
    parser.add_argument("--separator", help="splits txt files into documents (\\n\\n)")
    parser.add_argument("--vocab_size", type=int, default=32768)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/prepare.json"))
    options = parser.parse_args()
    use_threads(options.num_workers)
    if options.input is None:
        script = Path(__file__).with_name("demo_corpus.py")
        subprocess.run([sys.executable, str(script), str(DEMO)], check=True)
    separator = options.separator and options.separator.replace("\\n", "\n")
    documents = Documents(options.input or [str(DEMO)], separator=separator)
    result = compare(documents, options.vocab_size, options.repeats)
    write(options.output, {"result": result})
    print(json.dumps({k: v for k, v in result.items() if "_seconds" not in k}, indent=1))


if __name__ == "__main__":
    main()
