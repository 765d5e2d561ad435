"""`headless validate`: the scores of a checkpoint on its validation text."""

import json
from pathlib import Path
from textwrap import fill

from docstring_parser import parse

import headless
from headless.errors import HeadlessError
from headless.training.options import GROUPS, docstring_of
from headless.training.parsing import read_words

HELP = """usage: headless validate RUN_OR_CHECKPOINT [--option value …]

Scores the last checkpoint of a run directory, or any checkpoint below one, on the validation split
of its data. Prints the objective's own loss and, under the LM head that the objective implies,
nats (also by frequency decile), perplexity, bits per byte and accuracy. Writes nothing.

options, by default as in the run's config:"""
SHOWN = (
    *("data.path", "data.val_batch_size", "data.num_workers", "data.verify"),
    *("trainer.accelerator", "trainer.devices", "trainer.limit_val_batches"),
)


def usage() -> str:
    lines = [HELP]
    for name in SHOWN:
        group, _, option = name.partition(".")
        docs = parse(docstring_of(*GROUPS[group])).params
        text = next(param.description or "" for param in docs if param.arg_name == option)
        words = " ".join(text.split("\n\n")[0].replace("``", "").split()).split(". ")[0]
        lines += [f"  --{name}", fill(words, 94, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join([*lines, "", "Any other option of headless pretrain can follow."])


def main(arguments: list[str]) -> None:
    place, *words = arguments or [""]
    if {place, *words} & {"-h", "--help"}:
        print(usage())
        return
    if not place:
        raise HeadlessError("name a run directory or a checkpoint: headless validate RUN")
    if place.startswith("--"):
        raise HeadlessError("the run directory or checkpoint comes first: headless validate RUN …")
    if not Path(place).exists():
        raise HeadlessError(f"there is no {place}: name a run directory or a checkpoint")
    overrides = {}
    for option, value, _ in read_words(words):
        if not option or value is None:
            raise HeadlessError(f"{option or value}: every option is --name value")
        overrides[option[2:]] = value
    print(json.dumps(headless.validate(place, overrides, progress=True), indent=2, sort_keys=True))
