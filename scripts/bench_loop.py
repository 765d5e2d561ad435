"""What our loop and our monitors cost over a bare torch loop of the same model, side by side.

    python scripts/bench_loop.py [--steps 60] [--repeats 3] [--output benchmarks/loop.json]

Three loops train the same weights on the same batches, in turn, several times in one process:
a bare torch loop (forward, backward, clip, AdamW, schedule); ours without monitors; ours with
every monitor at its default cadence. The JSON holds the seconds a step of each and the ratios
(loop: ours without monitors / bare; monitors: with / without).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarking import write
from torch import nn

from headless.data.collate import Batch
from headless.models.backbone import hidden_states
from headless.objectives import UniqueTargets
from headless.training.assembly import RunCLI, arguments_of, build
from headless.training.optim import build_optimizer

MODEL = {  # the demo's
    "model_type": "gpt_neox",
    "hidden_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "max_position_embeddings": 128,
}


def make_config(root: Path, data: Path, steps: int) -> dict[str, Any]:
    """A run of the demo's model on batches of 16."""
    trainer = {"max_steps": steps, "gradient_clip_val": 1.0, "enable_progress_bar": False}
    return {
        "seed_everything": 1,
        "run": {"name": f"run-{time.monotonic_ns()}", "root": str(root), "wandb": "disabled"},
        "model": {"objective": {"class_path": "ContrastiveWeightTying"}, "backbone": MODEL},
        "data": {"path": str(data), "sequence_length": 128, "batch_size": 16},
        "trainer": {**trainer, "limit_val_batches": 0, "enable_model_summary": False},
        "checkpoint": {"every_n_steps": 1_000_000},
    }


def make_data(directory: Path) -> Path:
    """A prepared dataset of random words: only its shape matters here."""
    from headless.data.prepare import prepare

    generator = torch.Generator().manual_seed(0)
    words = [f"w{i}" for i in range(3000)]
    zipf = 1.0 / torch.arange(1, 3001)
    text = directory / "text.txt"
    documents = [
        " ".join(words[i] for i in torch.multinomial(zipf, 2000, True, generator=generator))
        for _ in range(200)
    ]
    text.write_text("\n\n".join(documents))
    output = directory / "data"
    prepare([str(text)], output, vocab_size=4096, document_separator="\n\n")
    return output


def build_run(root: Path, data: Path, steps: int, monitors: bool) -> RunCLI:
    """Our run, with or without the monitors."""
    wandb = {"run.wandb": "offline" if monitors else "disabled"}
    cli = build(arguments_of(make_config(root, data, steps), wandb))
    if not monitors:
        keep = ("ProgressMonitor", "RunCheckpoint")
        cli.trainer.callbacks = [c for c in cli.trainer.callbacks if type(c).__name__ in keep]
    return cli


def training_step(cli: RunCLI, total: int) -> Callable[[Batch], None]:
    """A step of a run's model (forward, backward, clip, AdamW, schedule), without a trainer."""
    module, data = cli.model, cli.datamodule
    module.trainer = data.trainer = cli.trainer
    module.objective.set_unigram(data.unigram_counts)
    optimizer, schedule = build_optimizer(
        module, module.optimizer_config, module.schedule_config, total
    )
    module.train()

    def step(batch: Batch) -> None:
        unique = UniqueTargets(batch["unique_ids"], batch["unique_inverse"], batch["unique_counts"])
        hidden_ND = hidden_states(module.backbone, batch["input_ids"]).flatten(0, 1)
        targets_N = batch["targets"].flatten()
        loss = module.objective(hidden_ND, targets_N, module.embedding_VD, unique).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    return step


def bare_loop(cli: RunCLI, steps: int) -> float:
    """Seconds of a loop that does nothing but train."""
    step = training_step(cli, steps)
    batches = iter(cli.datamodule.train_dataloader())
    begin = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    return time.perf_counter() - begin


def our_loop(cli: Any) -> float:
    """Seconds of our loop over the same steps, from the first batch on, everything included."""
    from lightning.pytorch import Callback

    class Stopwatch(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            self.begin = getattr(self, "begin", None) or time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.begin

    stopwatch = Stopwatch()
    cli.trainer.callbacks.append(stopwatch)
    cli.run.directory.checkpoints.mkdir(parents=True)
    cli.trainer.fit(cli.model, cli.datamodule)
    return stopwatch.seconds


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/loop.json"))
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"bare": [], "ours": [], "ours_with_monitors": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = make_data(root)
        for repeat in range(options.repeats + 1):
            # Every loop stands once in each place of the order, and the first round warms up.
            loops = list(seconds)
            for name in loops[repeat % 3 :] + loops[: repeat % 3]:
                cli = build_run(root, data, options.steps, name == "ours_with_monitors")
                took = bare_loop(cli, options.steps) if name == "bare" else our_loop(cli)
                print(f"{name}: {took / options.steps * 1e3:.1f} ms a step", file=sys.stderr)
                if repeat:
                    seconds[name].append(took / options.steps)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "steps": options.steps,
        "repeats": options.repeats,
        "seconds_per_step": seconds,
        "ratio_loop": median["ours"] / median["bare"],
        "ratio_monitors": median["ours_with_monitors"] / median["ours"],
    }
    write(options.output, result)
    print(f"our loop / bare torch loop: {result['ratio_loop']:.3f}")
    print(f"with all monitors / without: {result['ratio_monitors']:.3f}")


if __name__ == "__main__":
    main()
