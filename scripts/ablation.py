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
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

BARE, NLL = "val/nll_uncalibrated", "val/nll"


def set_key(config: dict, dotted: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts."""
    *path, last = dotted.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


def make_config(sweep: dict, name: str, objective: dict, lr: float, seed: int, steps: int) -> dict:
    """The config of one run: the base, the sweep's overrides, and what is varied."""
    from headless.training.options import read_config

    config = read_config(sweep["base"])
    for dotted, value in sweep["overrides"].items():
        set_key(config, dotted, value)
    total = config["trainer"]["max_steps"]
    warmup = round(config["model"]["schedule"]["warmup_steps"] * steps / total)
    config["model"]["objective"] = objective
    for dotted, value in {
        "seed_everything": seed,
        "model.optimizer.lr": lr,
        "model.schedule.warmup_steps": warmup,
        "run.name": name,
        "run.root": sweep["runs"],
        "run.group": "ablation",
        "run.wandb": "disabled",
        "run.tags": [],
        "data.path": sweep["data"],
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        "trainer.enable_progress_bar": False,
        "checkpoint.every_n_steps": steps,
        "geometry.every_n_steps": steps,
        "samples.every_n_steps": steps,
    }.items():
        set_key(config, dotted, value)
    return config


def build_run(config: dict) -> Any:
    """A run from its config, through the command line's own builder."""
    from headless.training.assembly import build

    path = Path(config["run"]["root"]) / f"{config['run']['name']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return build(["--config", str(path)])


def train(config: dict, threads: int) -> dict[str, Any]:
    """Train one run, or read what an earlier call left; returns its last validation."""
    import torch

    from headless.runs.directory import RunDirectory
    from headless.runs.metrics import read_metrics
    from headless.training.pretrain import fit

    torch.set_num_threads(threads)
    run = RunDirectory(Path(config["run"]["root"]) / config["run"]["name"])
    if not (run.summary.is_file() and json.loads(run.summary.read_text())["finished"]):
        config["run"]["overwrite"] = run.path.exists()
        cli = build_run(config)
        fit(cli)
    points = [point for point in read_metrics(run.metrics) if NLL in point]
    last = points[-1]
    return {
        "nll": last[NLL],
        "nll_bare": last.get(BARE),
        "accuracy": last["val/accuracy"],
        "tokens": last["progress/tokens"],
        "parameters": json.loads(run.summary.read_text()).get("parameters"),
    }


def time_steps(sweep: dict, steps: int = 12, rounds: int = 5) -> dict[str, float]:
    """Seconds of a training step (forward, backward, clip, AdamW) of each objective, in turn."""
    import torch
    from torch import nn

    from headless.training.optim import build_optimizer

    torch.set_num_threads(sweep["threads"])
    made = {}
    for name, objective in sweep["objectives"].items():
        cli = build_run(make_config(sweep, f"timing_{name}", objective, 1e-3, 1, 100))
        module, data = cli.model, cli.datamodule
        module.trainer = data.trainer = cli.trainer
        module.objective.set_unigram(data.unigram_counts)
        optimizer, _ = build_optimizer(module, module.optimizer_config, module.schedule_config, 100)
        made[name] = module, optimizer, list(islice(data.train_dataloader(), steps))
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for round_ in range(rounds + 1):
        for name, (module, optimizer, batches) in made.items():
            module.train()
            for batch in batches if round_ else batches[:2]:
                begin = time.perf_counter()
                loss = module.score(
                    batch["input_ids"], batch["targets"], module._unique(batch)
                ).loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                if round_:
                    seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def estimate(values: list[float]) -> dict[str, Any]:
    """Mean and half-width of the 95 % interval (Student's t) over seeds."""
    from headless.reports import statistics as of_seeds

    found = of_seeds.estimate(values)
    assert found is not None
    return {**asdict(found), "values": values}


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Estimates over the seeds of one objective at one budget."""
    table = {
        key: estimate([result[key] for result in results])
        for key in ("nll", "nll_bare", "accuracy")
        if results[0][key] is not None
    }
    return {**table, "tokens": results[0]["tokens"]}


class Sweep:
    """Trains what is asked for, several runs at a time."""

    def __init__(self, sweep: dict, workers: int) -> None:
        self.sweep = sweep
        self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    def train(self, wanted: list[tuple[str, float, int, int]]) -> list[dict[str, Any]]:
        """Results of (objective, rate, seed, steps), in order."""
        futures = []
        for objective, lr, seed, steps in wanted:
            name = f"{objective}_lr{lr:g}_seed{seed}_steps{steps}"
            chosen = self.sweep["objectives"][objective]
            config = make_config(self.sweep, name, chosen, lr, seed, steps)
            futures.append((name, self.pool.submit(train, config, self.sweep["threads"])))
        results = []
        for name, future in futures:
            results.append(future.result())
            print(f"{time.strftime('%X')} {name}: {results[-1]['nll']:.4f}", file=sys.stderr)
        return results


def run_sweep(sweep: dict, workers: int) -> dict[str, Any]:
    """All three stages; returns what is written."""
    from headless.training.options import read_config

    names, rates, seeds = list(sweep["objectives"]), sweep["learning_rates"], sweep["seeds"]
    base = read_config(sweep["base"])
    for dotted, value in sweep["overrides"].items():
        set_key(base, dotted, value)
    steps = base["trainer"]["max_steps"]
    timing = Path(sweep["runs"]) / "timing.json"
    if not timing.is_file():
        seconds = time_steps(sweep)
        timing.write_text(json.dumps(seconds))
    seconds = json.loads(timing.read_text())
    runner = Sweep(sweep, workers)

    first = seeds[0]
    grid = [(name, lr, first, steps) for name in names for lr in rates]
    search = dict(zip(grid, runner.train(grid), strict=True))
    rate = {
        name: min(rates, key=lambda lr: search[name, lr, first, steps]["nll"]) for name in names
    }
    fastest = min(seconds.values())
    affordable = {name: round(steps * fastest / seconds[name]) for name in names}
    # Two per cent of the steps are within the error of the timing: the same run serves for both.
    affordable = {name: steps if n > 0.98 * steps else n for name, n in affordable.items()}
    equal_tokens = [(name, rate[name], seed, steps) for name in names for seed in seeds]
    equal_seconds = [(name, rate[name], seed, affordable[name]) for name in names for seed in seeds]
    tables = {}
    for budget, wanted in (("equal_tokens", equal_tokens), ("equal_seconds", equal_seconds)):
        results = dict(zip(wanted, runner.train(wanted), strict=True))
        tables[budget] = {
            name: {
                "steps": (steps if budget == "equal_tokens" else affordable[name]),
                **summarise([v for k, v in results.items() if k[0] == name]),
            }
            for name in names
        }
    return {
        "learning_rate": rate,
        "search": {
            name: {f"{lr:g}": search[name, lr, first, steps]["nll"] for lr in rates}
            for name in names
        },
        "seconds_per_step": seconds,
        **tables,
    }


def describe(sweep: dict) -> dict[str, str]:
    """Each objective in its own words."""
    from jsonargparse import ArgumentParser

    from headless.objectives import Objective

    words = {}
    for name, spec in sweep["objectives"].items():
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--objective", type=Objective)
        parsed = parser.parse_object({"objective": spec})
        words[name] = parser.instantiate_classes(parsed).objective.describe()
    return words


def with_interval(value: dict[str, Any] | None) -> str:
    """Mean ± half-width."""
    if value is None:
        return ""
    if value["half_width"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ± {value['half_width']:.3f}"


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    words, seconds = result["objectives"], result["seconds_per_step"]
    slowest = max(seconds.values())
    seeds = next(iter(result["equal_tokens"].values()))["nll"]["n"]
    lines = [
        "| objective | lr | speed of a step | nats, equal tokens | bare head "
        "| nats, equal seconds | steps |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, description in words.items():
        tokens, time_ = result["equal_tokens"][name], result["equal_seconds"][name]
        lines.append(
            f"| {description} | {result['learning_rate'][name]:g} | {slowest / seconds[name]:.2f}x "
            f"| {with_interval(tokens['nll'])} | {with_interval(tokens.get('nll_bare'))} "
            f"| {with_interval(time_['nll'])} | {time_['steps']} |"
        )
    return "\n".join(lines) + (
        f"\n\nValidation nats a token under the head that each objective implies, mean and 95 % "
        f"interval over {seeds} seeds; {tokens['tokens']:,} training tokens at equal tokens.\n"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Both budgets, a dot a seed, a line for the interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    words = result["objectives"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, sharex=True)
    for axis, budget in zip(axes, ("equal_tokens", "equal_seconds"), strict=True):
        for row, name in enumerate(words):
            value = result[budget][name]["nll"]
            colour = "#c1443c" if "headless" in words[name] else "#35608d"
            half = value["half_width"] or 0.0
            axis.plot([value["mean"] - half, value["mean"] + half], [row, row], color=colour, lw=2)
            axis.plot(value["values"], [row] * value["n"], "o", color=colour, ms=4, alpha=0.7)
        axis.set_title(budget.replace("_", " "), fontsize=10)
        axis.set_xlabel("validation nats a token")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(words)), list(words.values()))
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


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
    from headless.runs.environment import describe_environment

    result = {"objectives": describe(sweep), **run_sweep(sweep, options.workers)}
    result |= {"threads": threads, "config": sweep, "environment": describe_environment()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    table = markdown(result)
    options.output.with_suffix(".md").write_text(table)
    plot(result, options.output.with_suffix(".svg"))
    print(table)


if __name__ == "__main__":
    main()
