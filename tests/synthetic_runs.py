"""Run directories with realistic curves, written as `pretrain` writes them, for tests of reports.

The curves are power laws with a little seeded noise. Nothing in them is a measurement.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

LAYERS, WIDTH, VOCAB = 4, 192, 4096
BYTES_PER_TOKEN = 3.6
TOKENS_PER_STEP = 4096
FLOOR = {"cross_entropy": 3.62, "headless": 3.55}
SPEED = {"cross_entropy": 21_000.0, "headless": 30_500.0}


def config_of(kind: str, name: str, seed: int, root: Path) -> dict[str, Any]:
    """A resolved config."""
    objective: dict[str, Any] = {
        "class_path": "headless.objectives.cross_entropy.CrossEntropy",
        "init_args": {"tied": False, "z_loss": 0.0},
    }
    if kind == "headless":
        objective = {
            "class_path": "headless.objectives.contrastive.ContrastiveWeightTying",
            "init_args": {"temperature": 1.0, "duplicates": "count"},
        }
    return {
        "seed_everything": seed,
        "run": {"name": name, "root": str(root), "group": "demo", "tags": ["demo", kind]},
        "model": {
            "objective": objective,
            "backbone": {"model_type": "gpt_neox", "hidden_size": WIDTH},
            "optimizer": {"lr": 0.002},
        },
        "data": {"path": "data/demo", "sequence_length": 128, "batch_size": 32},
        "trainer": {"max_steps": 400, "precision": "32-true"},
    }


def points_of(kind: str, seed: int, steps: int) -> list[dict[str, float]]:
    """The logged points."""
    noise = random.Random(f"{kind} {seed}")
    shift = noise.gauss(0, 0.012)
    speed = SPEED[kind] * (1 + noise.gauss(0, 0.01))
    points = []
    for step in range(5, steps + 1, 5):
        tokens = step * TOKENS_PER_STEP
        cost = 46e6 if kind == "cross_entropy" else 33e6
        at = {
            "progress/step": step,
            "progress/tokens": tokens,
            "progress/seconds": tokens / speed,
            "progress/flops": tokens * cost,
        }
        nll = FLOOR[kind] + shift + 4.7 * math.exp(-((step / 38) ** 0.62))
        loss = nll + noise.gauss(0, 0.05) + (1.1 if kind == "headless" else 0)
        points.append(
            at | {"train/loss": loss, "optim/lr": 2e-3, "throughput/step_ms": 1e3 * 4096 / speed}
        )
        if step % 50:
            continue
        points.append(at | _validation(kind, nll))
        points.append(at | _geometry(kind, step, noise))
    return points


def _validation(kind: str, nll: float) -> dict[str, float]:
    values = {
        "val/loss": nll + (1.1 if kind == "headless" else 0),
        "val/nll": nll,
        "val/perplexity": math.exp(nll),
        "val/bits_per_byte": nll / math.log(2) / BYTES_PER_TOKEN,
        "val/accuracy": 0.62 - 0.06 * nll,
    }
    if kind == "headless":
        values["val/nll_uncalibrated"] = nll + 1.42
    return values


def _geometry(kind: str, step: int, noise: random.Random) -> dict[str, float]:
    grown = 1 - math.exp(-step / 120)
    top = 0.34 if kind == "cross_entropy" else 0.11
    values = {}
    for layer in range(LAYERS + 1):
        name = f"layer_{layer:02d}"
        rise = top * grown * (0.35 + 0.65 * layer / LAYERS) + noise.gauss(0, 0.006)
        values[f"geometry/anisotropy/{name}"] = rise
        rank = WIDTH * (0.82 - 0.9 * rise - 0.04 * layer / LAYERS)
        values[f"geometry/effective_rank/{name}"] = rank
        values[f"geometry/anisotropy_first_position/{name}"] = 0.99
    values["geometry/anisotropy/embedding"] = 0.4 * top * grown
    values["geometry/effective_rank/embedding"] = WIDTH * (0.95 - 0.3 * top * grown)
    return values


def write_run(
    root: Path, kind: str, seed: int = 1, *, name: str = "", steps: int = 400, finished: bool = True
) -> Path:
    """Write one run directory below `root`; an unfinished one has no final summary."""
    name = name or f"{kind}-{seed}"
    run = root / name
    (run / "checkpoints").mkdir(parents=True)
    config = config_of(kind, name, seed, root)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    points = points_of(kind, seed, steps)
    (run / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    last: dict[str, float] = {}
    for point in points:
        last |= {k: v for k, v in point.items() if not k.startswith("progress/")}
    at = points[-1]
    summary = {
        "name": name,
        "objective": "headless (CWT)" if kind == "headless" else "cross-entropy (untied)",
        "objective_class": "ContrastiveWeightTying" if kind == "headless" else "CrossEntropy",
        "backbone": f"gpt_neox {LAYERS} x {WIDTH}",
        "parameters": 2_569_728 if kind == "headless" else 3_356_160,
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "seed": seed,
        "group": "demo",
        "tags": ["demo", kind],
        "tokenizer_sha256": "ab" * 32,
        "steps": steps,
        "tokens": at["progress/tokens"],
        "seconds": at["progress/seconds"],
        "wall_seconds": at["progress/seconds"] * 1.2,
        "flops": at["progress/flops"],
        "tokens_per_second": at["progress/tokens"] / at["progress/seconds"],
        "peak_memory_gib": (2.9 if kind == "cross_entropy" else 2.2) + 0.01 * seed,
        "memory_kind": "host",
        "finished": finished,
        "last": last,
    }
    if finished:
        (run / "summary.json").write_text(json.dumps(summary))
    environment = {
        "headless": "0.1.0",
        "python": "3.11.9",
        "packages": {"torch": "2.13.0", "lightning": "2.6.6"},
        "cpu": "An ordinary processor",
        "cores": 2,
        "gpus": [],
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "command": f"headless pretrain --config configs/demo/{kind}.yaml --seed_everything {seed}",
    }
    (run / "environment.json").write_text(json.dumps(environment))
    texts = ("HAMLET. ", "Of Man's first disobedience")
    written = {
        "cross_entropy": "I will not speak of it, my lord,\nAnd so the night <is> past & gone.",
        "headless": "And what of that? The king hath sworn,\nAnd I shall keep his word till morn.",
    }
    samples = [
        {
            "progress/step": s,
            "progress/tokens": s * TOKENS_PER_STEP,
            "prompt": p,
            "text": written[kind],
        }
        for s in (200, steps)
        for p in texts
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return run


def write_runs(root: Path, seeds: tuple[int, ...] = (1, 2, 3)) -> list[Path]:
    """Both kinds with each seed: all cross-entropy runs, then all headless ones."""
    return [write_run(root, kind, seed) for kind in ("cross_entropy", "headless") for seed in seeds]


def edit_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def edit_config(run: Path, key: str, value: Any) -> None:
    """Change one dotted key of a run's config."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    *parents, leaf = key.split(".")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    place[leaf] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))
