"""The objectives side by side: each at its best learning rate, several seeds, two fair budgets.

    python scripts/ablation.py [--config configs/ablation/objectives.yaml] [--workers 2]

1. Times a training step of every objective, in turn in one process.
2. Trains each objective with each learning rate on the first seed and takes the best (lowest
   validation nats under the head that the objective implies).
3. Trains the other seeds at that rate: the table at equal tokens.
4. Trains the slower objectives again with as many steps as the fastest one's time pays for, the
   schedule fitted to them: the table at equal seconds. Seconds come from 1, so that what else the
   machine does meanwhile decides nothing.

Every run is an ordinary run directory (`headless compare` reads it), and a finished one is not run
again: the sweep can be stopped and continued. Writes OUTPUT.json, OUTPUT.md and OUTPUT.svg.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_loop import training_step
from benchmarking import interleaved, write

import headless
from headless.pages.figures import drawing_style, new_figure
from headless.reports.statistics import estimate
from headless.training.assembly import arguments_of, build

Wanted = tuple[str, float, int, int]  # objective, learning rate, seed, steps
SCORES = {"nll": "val/nll", "nll_bare": "val/nll_uncalibrated", "accuracy": "val/accuracy"}
BUDGETS = ("equal_tokens", "equal_seconds")


def overrides(sweep: dict, name: str, wanted: Wanted) -> dict[str, Any]:
    """What a run has beside the sweep's base."""
    objective, lr, seed, steps = wanted
    given = sweep["overrides"]
    warmup = given["model.schedule.warmup_steps"] * steps / given["trainer.max_steps"]
    return {
        **given,
        "seed_everything": seed,
        "model.objective": sweep["objectives"][objective],
        "model.optimizer.lr": lr,
        "model.schedule.warmup_steps": round(warmup),
        "run.name": name,
        "run.root": sweep["runs"],
        "run.group": "ablation",
        "run.wandb": "disabled",
        "run.tags": [],
        "run.overwrite": True,
        "data.path": sweep["data"],
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        **{f"{part}.every_n_steps": steps for part in ("checkpoint", "samples")},
    }


def train(sweep: dict, wanted: Wanted) -> dict[str, Any]:
    """Train one run, or read what an earlier call left; returns its last validation."""
    torch.set_num_threads(sweep["threads"])
    name = "{}_lr{:g}_seed{}_steps{}".format(*wanted)
    path = Path(sweep["runs"]) / name
    run = headless.Run(path) if (path / "summary.json").is_file() else None
    if run is None or not run.summary.get("finished"):
        run = headless.pretrain(sweep["base"], overrides(sweep, name, wanted))
    last = [point for point in run.points if SCORES["nll"] in point][-1]
    print(f"{time.strftime('%X')} {name}: {last[SCORES['nll']]:.4f}", file=sys.stderr)
    return {
        **{key: last.get(metric) for key, metric in SCORES.items()},
        "tokens": last["progress/tokens"],
        "objective": run.summary["objective"],
    }


def time_steps(sweep: dict, batches: int = 12, rounds: int = 60) -> dict[str, float]:
    """Seconds of a training step (forward, backward, clip, AdamW) of each objective, in turn."""
    torch.set_num_threads(sweep["threads"])
    steps = {}
    for name in sweep["objectives"]:
        more = overrides(sweep, f"timing_{name}", (name, 1e-3, 1, 100))
        cli = build(arguments_of(sweep["base"], more))
        step = training_step(cli, 100)
        read = cycle(list(islice(cli.datamodule.train_dataloader(), batches)))
        steps[name] = lambda step=step, read=read: step(next(read))
    seconds = interleaved(steps, torch.device("cpu"), rounds)
    return {name: statistics.median(values) for name, values in seconds.items()}


def run_sweep(sweep: dict, workers: int) -> dict[str, Any]:
    """All stages; returns what is written."""
    names, rates, seeds = list(sweep["objectives"]), sweep["learning_rates"], sweep["seeds"]
    steps, first = sweep["overrides"]["trainer.max_steps"], seeds[0]
    timing = Path(sweep["runs"]) / "timing.json"
    if not timing.is_file():
        timing.write_text(json.dumps(time_steps(sweep)))
    seconds = json.loads(timing.read_text())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    results: dict[Wanted, dict[str, Any]] = {}

    def train_all(wanted: list[Wanted]) -> None:
        results.update(zip(wanted, pool.map(train, [sweep] * len(wanted), wanted), strict=True))

    train_all([(name, lr, first, steps) for name in names for lr in rates])
    search = {n: {lr: results[n, lr, first, steps]["nll"] for lr in rates} for n in names}
    rate = {name: min(rates, key=search[name].__getitem__) for name in names}
    affordable = {name: round(steps * min(seconds.values()) / seconds[name]) for name in names}
    # Two per cent of the steps are within the error of the timing: the same run serves for both.
    affordable = {name: steps if n > 0.98 * steps else n for name, n in affordable.items()}
    tables: dict[str, Any] = {}
    for budget, budgets in zip(BUDGETS, (dict.fromkeys(names, steps), affordable), strict=True):
        runs = {n: [(n, rate[n], seed, budgets[n]) for seed in seeds] for n in names}
        train_all([wanted for of_name in runs.values() for wanted in of_name])
        tables[budget] = {
            name: {"steps": budgets[name], **over_seeds([results[wanted] for wanted in of_name])}
            for name, of_name in runs.items()
        }
    return {
        "objectives": {n: results[n, rate[n], first, steps]["objective"] for n in names},
        "learning_rate": rate,
        "search": {n: {f"{lr:g}": nll for lr, nll in search[n].items()} for n in names},
        "seconds_per_step": seconds,
        **tables,
    }


def over_seeds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and 95 % interval (Student's t) of each score, with the single values."""
    table: dict[str, Any] = {"tokens": results[0]["tokens"]}
    for key in SCORES:
        values = [result[key] for result in results]
        if number := estimate(values):
            table[key] = {**asdict(number), "values": values}
    return table


def cell(number: dict[str, Any] | None) -> str:
    """Mean ± half-width."""
    if number is None:
        return ""
    half = number["half_width"]
    return f"{number['mean']:.3f}" + ("" if half is None else f" ± {half:.3f}")


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    seconds, (tokens, timed) = result["seconds_per_step"], (result[b] for b in BUDGETS)
    lines = [
        "| objective | lr | speed of a step | nats, equal tokens | bare head "
        "| nats, equal seconds | steps |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, words in result["objectives"].items():
        cells = [
            words,
            f"{result['learning_rate'][name]:g}",
            f"{max(seconds.values()) / seconds[name]:.2f}x",
            *(cell(tokens[name].get(key)) for key in ("nll", "nll_bare")),
            cell(timed[name]["nll"]),
            str(timed[name]["steps"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nValidation nats a token under the head that each objective implies, mean and 95 % "
        f"interval over {tokens[name]['nll']['n']} seeds; {tokens[name]['tokens']:,} training "
        "tokens at equal tokens.\n"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Both budgets, a dot a seed, a line for the interval."""
    words = result["objectives"]
    with drawing_style():
        figure = new_figure(10, 3.2)
        axes = figure.subplots(1, 2, sharey=True, sharex=True)
        for axis, budget in zip(axes, BUDGETS, strict=True):
            for row, name in enumerate(words):
                number = result[budget][name]["nll"]
                mean, half = number["mean"], number["half_width"] or 0.0
                colour = "#c1443c" if "headless" in words[name] else "#35608d"
                axis.plot([mean - half, mean + half], [row, row], color=colour, lw=2)
                values = number["values"]
                axis.plot(values, [row] * len(values), "o", color=colour, ms=4, alpha=0.7)
            axis.set(title=budget.replace("_", " "), xlabel="validation nats a token")
        axes[0].set_yticks(range(len(words)), list(words.values()))
        axes[0].invert_yaxis()
        figure.savefig(path)


def main() -> None:
    """Run the sweep and write its table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/ablation/objectives.yaml"))
    parser.add_argument("--data", default="data/demo", help="a prepared dataset")
    parser.add_argument("--runs", default="runs/ablation", help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/ablation"))
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, help="threads of a run; default: cores / workers")
    options = parser.parse_args()
    sweep = yaml.safe_load(options.config.read_text())
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers)
    sweep |= {"data": options.data, "runs": options.runs, "threads": threads}
    Path(options.runs).mkdir(parents=True, exist_ok=True)
    result = {**run_sweep(sweep, options.workers), "threads": threads, "config": sweep}
    write(options.output.with_suffix(".json"), result)
    table = markdown(result)
    options.output.with_suffix(".md").write_text(table)
    plot(result, options.output.with_suffix(".svg"))
    print(table)


if __name__ == "__main__":
    main()
