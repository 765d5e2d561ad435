"""Which models of a sweep continue what they have read before, and what it is worth in nats.

    python scripts/copying.py SWEEP [SWEEP ...] [--output FILE.json] [--tokens N]

SWEEP is a sweep's directory. One row a finished run: validation nats a token; of random sequences
the nats that their order is worth when they come again (induction: `headless analyze --analyses
copying`) with its value by chance; of the text's pairs of tokens that come again in a sequence
their nats, and those the first time. A run that FILE.json has is not analysed again.
"""

import argparse
import json
from pathlib import Path

from benchmarking import write
from sweep_runs import finished_runs

import headless

COLUMNS = {
    "nll": "nats a token",
    "induction": "nats that the order is worth",
    "induction_chance": "… by chance",
    "nll_again": "a pair again",
    "nll_first": "… the first time",
    "nll_others": "all other tokens",
    "again": "pairs that come again, share",
}


def of_run(run: headless.Run, tokens: int) -> dict[str, float]:
    """The validation loss, and every number of the analysis."""
    path = run.directory.path
    found = headless.analyze(path, analyses=["copying"], random_twin=False, tokens=tokens)
    own = {key.removeprefix("copying/"): value for key, value in found.scalars.items()}
    return {"nll": run.summary["last"]["val/nll"]} | own


def main() -> None:
    """Analyse what is not there yet, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/copying.json"))
    parser.add_argument("--tokens", type=int, default=32_768)
    options = parser.parse_args()
    runs: dict[str, dict[str, dict[str, float]]] = {}
    if options.output.is_file():
        runs = json.loads(options.output.read_text())["runs"]
    for sweep in options.sweeps:
        for arm, seed, run in finished_runs(sweep):
            if seed not in runs.get(arm, {}):
                runs.setdefault(arm, {})[seed] = of_run(run, options.tokens)
                write(options.output, {"tokens": options.tokens, "runs": runs})
    write(options.output, {"tokens": options.tokens, "runs": runs})
    print(f"| arm | seed | {' | '.join(COLUMNS.values())} |")
    print(f"| --- | ---: |{' ---: |' * len(COLUMNS)}")
    for arm, by_seed in runs.items():
        for seed, numbers in by_seed.items():
            cells = (f"{numbers[name]:.3f}" for name in COLUMNS)
            print(f"| {arm} | {seed} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
