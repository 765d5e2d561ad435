"""`headless validate`: the scores of a checkpoint on its validation text."""

import json
from pathlib import Path

from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.progress import Display
from headless.training.validate import validate_with

USAGE = """usage: headless validate RUN_OR_CHECKPOINT [--data.path DIR] [--trainer.accelerator cpu]

Evaluates the last checkpoint of a run directory, or any checkpoint below one, on the validation
split of its data (or of --data.path: the same tokenizer). Any option of pretrain can follow.
Prints the objective's own loss and, under the LM head that the objective implies, nats,
perplexity, bits per byte and accuracy. Writes nothing."""


@isolated()
def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if not arguments:
            raise HeadlessError("name a run directory or a checkpoint")
        return
    if arguments[0].startswith("--"):
        raise HeadlessError("the run directory or checkpoint comes first: headless validate RUN …")
    place = Path(arguments[0])
    if not place.exists():
        raise HeadlessError(f"there is no {place}: name a run directory or a checkpoint")
    with Display() as display:
        scores = validate_with(place, arguments[1:], display)
    print(json.dumps(scores, indent=2, sort_keys=True))
