"""What glibc's habit of giving large blocks back costs training on a CPU, by objective.

    python scripts/bench_allocator.py DATA [--steps 60] [--rounds 3] [--output FILE.json]

The same run of `headless pretrain` in processes of its own, in turn: as it is (freed memory is
kept: `headless.training.devices.keep_freed_memory`), and with glibc's own settings. Losses must be
the same; seconds of a step and peaks of memory are what differs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarking import write

OBJECTIVES = {
    "cross-entropy, tied": {"class_path": "CrossEntropy", "init_args": {"tied": True}},
    "CWT": {"class_path": "ContrastiveWeightTying"},
}
GLIBC = {"MALLOC_PERTURB_": "0"}  # its default, by which ours leaves everything as it is
TOKENS = 32 * 128  # of a step


def train(data: Path, root: Path, objective: dict[str, Any], steps: int, glibc: bool) -> dict:
    """A run's seconds a step, its peak and its loss."""
    config = {
        "data": {"path": str(data), "sequence_length": 128, "batch_size": 32},
        "model": {
            "backbone": {
                "model_type": "qwen3",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 176,
                "max_position_embeddings": 128,
            },
            "objective": objective,
            "compile": False,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": steps,
            "val_check_interval": steps,
            "limit_val_batches": 2,
            "check_val_every_n_epoch": None,
        },
        "laboratory": {"enabled": False},
        "run": {"name": "run", "root": str(root), "wandb": "disabled", "overwrite": True},
    }
    file = root / "config.yaml"
    file.write_text(json.dumps(config))  # which is YAML, too
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    subprocess.run(
        [sys.executable, "-m", "headless", "pretrain", "--config", str(file)],
        env={**own, **(GLIBC if glibc else {})},
        check=True,
        capture_output=True,
    )
    last = json.loads((root / "run" / "summary.json").read_text())["last"]
    return {
        "step_ms": 1000 * TOKENS / last["throughput/tokens_per_second"],
        "peak_host_gib": last["memory/peak_host_gib"],
        "nll": last["val/nll"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a prepared dataset")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/allocator.json"))
    options = parser.parse_args()
    rows: dict[str, dict[str, list[dict]]] = {n: {"kept": [], "glibc": []} for n in OBJECTIVES}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds):
            for name, objective in OBJECTIVES.items():
                for how, runs in rows[name].items():
                    root, glibc = Path(directory), how == "glibc"
                    runs.append(train(options.data, root, objective, options.steps, glibc))
    results: dict[str, Any] = {}
    for name, found in rows.items():
        if len({run["nll"] for runs in found.values() for run in runs}) > 1:
            sys.exit(f"{name}: the losses differ")
        step = {how: statistics.median(r["step_ms"] for r in runs) for how, runs in found.items()}
        results[name] = {"step_ms": step, "glibc / kept": step["glibc"] / step["kept"], **found}
        print(
            f"{name:20s} {step['kept']:8.1f} ms a step, with glibc's settings "
            f"{step['glibc']:8.1f} ({step['glibc'] / step['kept']:.2f}x)"
        )
    manifest = json.loads((options.data / "manifest.json").read_text())
    written = {"vocab_size": manifest["vocab_size"], "tokens_per_step": TOKENS, "rows": results}
    write(options.output, written)


if __name__ == "__main__":
    main()
