"""Training end to end: tokens a second, MFU, memory; ours beside the Hugging Face Trainer.

    python scripts/bench_training.py [--preset cpu|gpu] [--output FILE.json]

The same backbone, tokens, batch, precision, optimizer and clipping in every row, one after the
other in one process, several rounds. Ours runs through lightning.Trainer and PretrainingModule.
Needs torch, lightning and transformers; the Trainer's rows need accelerate and are left out, with
the reason, where it is missing.
"""

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from benchmarking import (
    check_targets,
    interleaved,
    peak_bytes,
    ratio,
    synchronize,
    write,
    zipf_labels,
)
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from headless.callbacks.throughput import peak_flops
from headless.data.blocks import BlockDataset, BlockSampler
from headless.data.collate import CausalCollator
from headless.models.backbone import BackboneConfig, backbone_config
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective
from headless.training.module import PretrainingModule
from headless.training.optim import AdamWConfig, ScheduleConfig

TINY = BackboneConfig(
    model_type="gpt_neox",
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=128,
)
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"models": {"tiny": TINY}, "v": 8192, "length": 128, "batch": 16, "steps": 8},
    "gpu": {
        "models": {n: BackboneConfig(preset=n) for n in ("pythia-70m", "pythia-160m")},
        "v": 50304,
        "length": 2048,
        "batch": 16,
        "steps": 40,
    },
}
WARMUP = 6  # steps that are not timed: compilation, autotuning, the allocator


class Tokens:
    """What `BlockDataset` asks of a token stream."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens
        self.path = "random tokens"

    def __len__(self) -> int:
        return len(self.tokens)


class TimedLoader:
    """A loader that adds up how long its consumer waited for batches."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            begin = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - begin
            yield batch


class Clock(Callback):
    """Seconds of the steps after the warm-up, and of the first one (compilation included)."""

    def __init__(self, loader: TimedLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.begin = self.first = self.start = self.waited = 0.0
        self.flops: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        """Start the clock."""
        if index == 0:
            self.begin = time.perf_counter()
        if index == WARMUP:
            synchronize(self.device)
            self.start, self.waited = time.perf_counter(), self.loader.waited
        if index >= WARMUP:
            self.flops.append(module.training_flops(batch))

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        """The first step took so long."""
        if not self.first:
            synchronize(self.device)
            self.first = time.perf_counter() - self.begin

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Stop the clock."""
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.start
        self.waited = self.loader.waited - self.waited


class Bench:
    """One model at one size, in every row."""

    def __init__(self, name: str, backbone: BackboneConfig, preset: dict, workers: int) -> None:
        self.name, self.backbone, self.preset, self.workers = name, backbone, preset, workers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.steps = WARMUP + preset["steps"]
        needed = self.steps * preset["batch"] * preset["length"] + 1
        tokens = zipf_labels(needed, preset["v"]).astype(np.int32)
        self.blocks = BlockDataset(Tokens(tokens), preset["length"], 0)  # type: ignore[arg-type]

    def loader(self, collate: Any) -> TimedLoader:
        """Batches as in training."""
        return TimedLoader(
            DataLoader(
                self.blocks,  # type: ignore[arg-type]
                batch_sampler=BlockSampler(len(self.blocks), self.preset["batch"]),  # type: ignore[arg-type]
                collate_fn=collate,
                num_workers=self.workers,
                pin_memory=self.device.type == "cuda",
            )
        )

    def ours(self, objective: Objective, compiled: bool) -> dict[str, Any]:
        """A run of ours."""
        torch.manual_seed(0)
        module = PretrainingModule(
            objective,
            self.backbone,
            AdamWConfig(lr=1e-4),
            ScheduleConfig(warmup_steps=10),
            vocab_size=self.preset["v"],
            sequence_length=self.preset["length"],
            compile=compiled,
        )
        loader = self.loader(CausalCollator(self.preset["v"]))
        clock = Clock(loader, self.device)
        trainer = Trainer(
            accelerator=self.device.type,
            devices=1,
            precision="bf16-mixed" if self.device.type == "cuda" else "32-true",
            max_steps=self.steps,
            gradient_clip_val=1.0,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        peak = self._peak(lambda: trainer.fit(module, loader))
        return self._result(clock.seconds, clock.first, clock.waited, peak, clock.flops)

    def hugging_face(self, compiled: bool) -> dict[str, Any]:
        """The same model under transformers.Trainer."""
        from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments
        from transformers import Trainer as HuggingFaceTrainer

        torch.manual_seed(0)
        config = backbone_config(self.backbone, self.preset["v"], bos_token_id=0, eos_token_id=0)
        config.tie_word_embeddings = False
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        device = self.device

        def collate(read: Any) -> dict[str, torch.Tensor]:
            tokens = torch.from_numpy(read.own.tokens_RS[:, :-1].copy())
            return {"input_ids": tokens, "labels": tokens}

        loader = self.loader(collate)

        class StepClock(TrainerCallback):
            seconds = first = start = begin = waited = 0.0

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 0:
                    self.begin = time.perf_counter()
                if state.global_step == WARMUP:
                    synchronize(device)
                    self.start, self.waited = time.perf_counter(), loader.waited

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if not self.first:
                    synchronize(device)
                    self.first = time.perf_counter() - self.begin

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                synchronize(device)
                self.seconds = time.perf_counter() - self.start
                self.waited = loader.waited - self.waited

        class WithLoader(HuggingFaceTrainer):
            def get_train_dataloader(self) -> Any:
                return loader

        clock = StepClock()
        with tempfile.TemporaryDirectory() as directory:
            trainer = WithLoader(
                model=model,
                args=TrainingArguments(
                    output_dir=directory,
                    per_device_train_batch_size=self.preset["batch"],
                    max_steps=self.steps,
                    bf16=device.type == "cuda",
                    use_cpu=device.type == "cpu",
                    optim="adamw_torch_fused",
                    learning_rate=1e-4,
                    adam_beta2=0.95,
                    weight_decay=0.1,
                    max_grad_norm=1.0,
                    lr_scheduler_type="cosine",
                    warmup_steps=10,
                    torch_compile=compiled,
                    logging_strategy="no",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                train_dataset=self.blocks,  # type: ignore[arg-type] # its length only
                callbacks=[clock],
            )
            peak = self._peak(trainer.train)
        return self._result(clock.seconds, clock.first, clock.waited, peak, [])

    def _peak(self, run: Any) -> int | None:
        """CUDA bytes that a run held at most; None on a CPU, where profiling would slow it down."""
        if self.device.type == "cuda":
            return peak_bytes(run, self.device)
        run()
        return None

    def _result(
        self, seconds: float, first: float, waited: float, peak: int | None, flops: list[float]
    ) -> dict[str, Any]:
        steps = self.steps - WARMUP
        tokens = steps * self.preset["batch"] * self.preset["length"]
        mfu = None
        if self.device.type == "cuda" and flops:
            limit = peak_flops(torch.cuda.get_device_name(), "bf16-mixed")
            mfu = None if limit is None else sum(flops) / seconds / limit
        return {
            "tokens_per_second": tokens / seconds,
            "step_ms": 1e3 * seconds / steps,
            "first_step_s": first,
            "data_wait_share": waited / seconds,
            "peak_gib": None if peak is None else peak / 2**30,
            "mfu": mfu,
        }

    def row_kernel_bound(self, step_ms: float) -> dict[str, float]:
        """The most that a hand-written row kernel of the loss could gain, as a share of a step.

        The compiled loss alone against its three matrix products alone: what is not a product is
        all that such a kernel could make faster.
        """
        rows, v = self.preset["batch"] * self.preset["length"], self.preset["v"]
        d = backbone_config(self.backbone, v).hidden_size
        batch = next(iter(self.loader(CausalCollator(v))))
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        hidden = torch.randn(rows, d, device=self.device, dtype=dtype, requires_grad=True)
        table = torch.randn(v, d, device=self.device, dtype=dtype) / d**0.5
        ids = batch["unique_ids"].to(self.device)
        inverse = batch["unique_inverse"].to(self.device)
        weight = batch["unique_counts"].to(self.device).float().log()
        picked = table[ids].requires_grad_()
        scores = hidden.detach() @ picked.detach().T

        def alone(h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy((h @ e.T).float() + weight, inverse)

        compiled = torch.compile(alone)

        def products() -> None:
            with torch.no_grad():
                hidden @ picked.T
                scores @ picked
                scores.T @ hidden

        def loss() -> None:
            torch.autograd.grad(compiled(hidden, picked), (hidden, picked))

        took = interleaved({"loss": loss, "products": products}, self.device, repeats=10)
        loss_ms, products_ms = (1e3 * statistics.median(took[k]) for k in ("loss", "products"))
        return {
            "loss_ms": loss_ms,
            "products_ms": products_ms,
            "bound": max(0.0, loss_ms - products_ms) / step_ms,
        }

    def run(self, repeats: int, compilation: tuple[bool, ...]) -> dict[str, Any]:
        """All rows, in turn."""
        rows = {
            f"{objective.__name__} {'compiled' if compiled else 'eager'}": functools.partial(
                lambda made, compiled: self.ours(made(), compiled), objective, compiled
            )
            for objective in (ContrastiveWeightTying, CrossEntropy)
            for compiled in compilation
        }
        for compiled in compilation:
            name = f"Hugging Face Trainer {'compiled' if compiled else 'eager'}"
            rows[name] = functools.partial(self.hugging_face, compiled)
        measured: dict[str, list[dict[str, Any]]] = {}
        skipped: dict[str, str] = {}
        for _ in range(repeats):
            for name, row in rows.items():
                if name in skipped:
                    continue
                try:
                    measured.setdefault(name, []).append(row())
                except Exception as error:  # noqa: BLE001 - a row that cannot run is left out
                    skipped[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                    measured.pop(name, None)
                    continue
                last = measured[name][-1]
                print(
                    f"{self.name} {name}: {last['tokens_per_second']:,.0f} tokens/s, first step "
                    f"{last['first_step_s']:.1f} s, waiting {last['data_wait_share']:.1%}, "
                    f"MFU {last['mfu']}, peak GiB {last['peak_gib']}",
                    file=sys.stderr,
                )
        median = {
            name: statistics.median(r["tokens_per_second"] for r in results)
            for name, results in measured.items()
        }

        def best(word: str) -> float | None:
            return max((v for k, v in median.items() if k.startswith(word)), default=None)

        result: dict[str, Any] = {
            "rows": measured,
            "skipped": skipped,
            "tokens_per_second": median,
            "ratios": {
                "headless / own cross-entropy": ratio(
                    best("ContrastiveWeightTying"), best("CrossEntropy")
                ),
                "own cross-entropy / Hugging Face Trainer": ratio(
                    best("CrossEntropy"), best("Hugging Face")
                ),
            },
        }
        ours = best("ContrastiveWeightTying")
        if ours:
            tokens = self.preset["batch"] * self.preset["length"]
            result["row_kernel"] = self.row_kernel_bound(1e3 * tokens / ours)
        return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if gpu else "cpu")
    parser.add_argument("--models", nargs="+", help="some of the preset's")
    parser.add_argument("--steps", type=int, help="timed steps")
    parser.add_argument("--batch", type=int, help="sequences of a micro-batch")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2 if gpu else 0, help="of the loader")
    parser.add_argument("--eager-only", action="store_true", help="without torch.compile")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/training.json"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    preset = dict(PRESETS[options.preset])
    preset |= {k: v for k in ("steps", "batch") if (v := getattr(options, k)) is not None}
    models = {n: m for n, m in preset.pop("models").items() if n in (options.models or [n])}
    results = {
        name: Bench(name, backbone, preset, options.workers).run(
            options.repeats, (False,) if options.eager_only else (True, False)
        )
        for name, backbone in models.items()
    }
    for name, result in results.items():
        for row, reason in result["skipped"].items():
            print(f"{name} {row}: left out, {reason}")
        for row, value in result["tokens_per_second"].items():
            print(f"{name:12s} {row:36s} {value:12,.0f} tokens/s")
        for row, value in result["ratios"].items():
            print(f"{name:12s} {row:48s}" + ("-" if value is None else f"{value:.2f}"))
        if "row_kernel" in result:
            print(f"{name:12s} a row kernel could gain at most {result['row_kernel']['bound']:.1%}")
    written: dict[str, Any] = {"preset": preset, "models": results}
    if gpu and {"pythia-70m", "pythia-160m"} <= set(results):
        small, large = results["pythia-70m"], results["pythia-160m"]
        mfu = [r["mfu"] for rows in large["rows"].values() for r in rows if r["mfu"] is not None]
        written["targets"] = check_targets(
            {
                "70M: headless / own cross-entropy": (
                    small["ratios"]["headless / own cross-entropy"],
                    ">=",
                    1.6,
                ),
                "70M: own cross-entropy / Hugging Face Trainer": (
                    small["ratios"]["own cross-entropy / Hugging Face Trainer"],
                    ">=",
                    1.3,
                ),
                "160M: MFU": (max(mfu, default=None), ">=", 0.4),
            }
        )
    write(options.output, written)


if __name__ == "__main__":
    main()
