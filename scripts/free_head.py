"""How many steps of fine-tuning is the free calibrated head worth? Several seeds, demo size.

    scripts/free_head.py [--seeds 1 2 3] [--runs runs/free_head] [--output benchmarks/free_head]

For each seed the demo's two models are trained, and the headless one gets a softmax head in several
ways (`headless finetune --task lm-head`): from its calibrated head, from a copy of the input
embeddings as in the paper (§3.3), with all weights and with a frozen backbone. The vanilla model
goes on for as many steps with its own head: what more training alone gives. Runs that are finished
are reused. Writes OUTPUT.json and a report beside the runs.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarking import write

import headless
from headless.reports.lm_heads import as_json

STEPS = 64  # a fifth of the demo's 320
# name, source, start, learning rate, frozen backbone. The sources end at 4e-4.
TUNINGS = (
    ("calibrated", "headless", "calibrated", 4e-4, False),
    ("calibrated-slow", "headless", "calibrated", 1e-4, False),
    ("embedding", "headless", "embedding", 1e-3, False),
    ("embedding-slow", "headless", "embedding", 4e-4, False),
    ("embedding-probe", "headless", "embedding", 4e-3, True),
    ("continued", "vanilla", "calibrated", 4e-4, False),
    ("continued-slow", "vanilla", "calibrated", 1e-4, False),
)


SCORES = ("val/nll", "val/nll_uncalibrated", "val/accuracy", "val/bits_per_byte")
QUIET = {"run.wandb": "disabled", "trainer.enable_progress_bar": False}


def is_finished(path: Path) -> bool:
    """Whether a run came to its end."""
    return path.is_dir() and bool(headless.Run(path).summary.get("finished"))


def train(runs: Path, name: str, seed: int) -> Path:
    """One of the demo's models with a seed."""
    path = runs / f"{name}-{seed}"
    if not is_finished(path):
        place = {"run.root": str(runs), "run.name": path.name, "run.resume": True}
        overrides = {"seed_everything": seed, **place, **QUIET}
        headless.pretrain(f"configs/demo/{name}.yaml", overrides, progress=True)
    return path


def tune(source: Path, name: str, start: str, rate: float, probe: bool) -> Path:
    """One fine-tuning of a run."""
    path = source.with_name(f"{source.name}-{name}")
    if not is_finished(path):
        options: dict[str, Any] = {"start": start, "probe": probe, "steps": STEPS, "lr": rate}
        headless.tune_head(source, {"run.overwrite": True, **QUIET}, **options, name=path.name)
    return path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/free_head"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/free_head"))
    options = parser.parse_args()
    paths = []
    for seed in options.seeds:
        sources = {name: train(options.runs, name, seed) for name in ("vanilla", "headless")}
        paths += sources.values()
        paths += [tune(sources[source], name, *rest) for name, source, *rest in TUNINGS]
    comparison = headless.compare(paths, output=options.runs / "report", overwrite=True)
    result: dict[str, Any] = {"steps": STEPS, "seeds": options.seeds, "pretrained": []}
    for group in comparison.groups:
        numbers = {key: number for key in SCORES if (number := group.number(key))}
        rows = {key: asdict(number) for key, number in numbers.items()}
        result["pretrained"].append({"label": group.label, **rows})
    result["fine_tuned"] = as_json(comparison.tuned)
    write(options.output.with_suffix(".json"), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
