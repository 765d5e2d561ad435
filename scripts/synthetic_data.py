"""Tokens of a source whose entropy rate is known, as sequences for `headless prepare`.

    python scripts/synthetic_data.py bigram data/bigram.jsonl --vocab_size 512 --tokens 2000000
    headless prepare --input data/bigram.jsonl --item_field items --num_items 512 \\
        --output data/bigram

What is known of the source is written beside the sequences (`data/bigram.truth.json`): nats a token
of the best model and of the best one without context, ends of documents among the tokens.
"""

import argparse
import json
import sys
from pathlib import Path

from headless.data.synthetic import bigram, spam, zipf
from headless.errors import HeadlessError

SOURCES = {
    "zipf": lambda o: zipf(o.vocab_size, o.exponent, o.length),
    "bigram": lambda o: bigram(o.vocab_size, o.successors, o.exponent, o.length, o.seed),
    "spam": lambda o: spam(o.vocab_size, o.length),
}


def main(arguments: list[str] | None = None) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("output", type=Path, help="a .jsonl file")
    parser.add_argument("--vocab_size", type=int, default=512, help="tokens, but for the end")
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--length", type=float, default=256, help="mean of a document")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law")
    parser.add_argument("--successors", type=int, default=8, help="of a token (bigram)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        source = SOURCES[options.source](options)
    except HeadlessError as error:
        parser.error(str(error))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with open(options.output, "w") as file:
        for document in source.documents(options.tokens, options.seed):
            file.write(json.dumps({"items": document.tolist()}) + "\n")
    known = {"entropy_rate": source.entropy_rate, "unigram_entropy": source.unigram_entropy}
    truth = {key: value for key, value in vars(options).items() if key != "output"} | known
    options.output.with_suffix(".truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    print(f"{options.output}: {json.dumps(known)} nats a token", file=sys.stderr)


if __name__ == "__main__":
    main()
