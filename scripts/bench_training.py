"""Training end to end: tokens a second, MFU, memory; ours beside the Hugging Face Trainer.

    python scripts/bench_training.py [--preset cpu|gpu] [--data DIR] [--output FILE.json]

The same backbone, tokens and their order, batch, precision, optimizer and clipping in every row,
one after the other in one process, several rounds. Ours runs through lightning.Trainer and
PretrainingModule. Then one compiled headless step by kernel: what a hand-written row kernel of the
loss could gain. Needs torch, lightning and transformers; the Hugging Face Trainer needs accelerate
and its rows are left out, with the reason, where it is missing.
"""

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarking import (
    Deadline,
    check_targets,
    graph_counters,
    kernel_class,
    kernel_times,
    peak_bytes,
    ratio,
    release,
    show_rows,
    write,
    zipf_labels,
)
from training_loops import PROFILED, WARMUP, Loops, Stopwatch

from headless.callbacks.throughput import peak_flops
from headless.data.stream import TokenStream, open_dataset, token_dtype, tokens_file
from headless.models.backbone import BackboneConfig
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective

TINY = BackboneConfig(
    model_type="gpt_neox",
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=128,
)
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"models": {"tiny": TINY}, "v": 8192, "length": 128, "batch": 16, "steps": 10},
    "gpu": {
        "models": {n: BackboneConfig(preset=n) for n in ("pythia-70m", "pythia-160m")},
        "brief": ("pythia-160m",),  # one round of ours, compiled: its MFU is what is asked
        "v": 50304,
        "length": 2048,
        "batch": 16,
        "steps": 40,
    },
}


class Bench:
    """One model at one size, in every row."""

    def __init__(self, name: str, loops: Loops) -> None:
        self.name, self.loops, self.device = name, loops, loops.device

    def measure(self, run: Callable[[Stopwatch], float]) -> dict[str, Any]:
        """One row, once: everything that it makes is made inside.

        `first_step_s` includes compilation, which from the second round on finds its kernels in
        the compiler's cache on disk.
        """
        release(self.device)
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        stopwatch = Stopwatch(self.loops.steps, self.device)
        flops: list[float] = []
        peak = None
        if self.device.type == "cuda":
            peak = peak_bytes(lambda: flops.append(run(stopwatch)), self.device) / 2**30
        else:
            flops.append(run(stopwatch))
        step_s = stopwatch.seconds / (self.loops.steps - WARMUP)
        return {
            "tokens_per_second": self.loops.tokens / step_s,
            "step_ms": 1e3 * step_s,
            "first_step_s": stopwatch.first,
            "data_wait_share": stopwatch.waited / stopwatch.seconds,
            "peak_gib": peak,
            "flops_of_a_step": flops[0],
            "mfu": self.mfu(flops[0], step_s),
            **graph_counters(),
        }

    def is_slow(self, row: str) -> bool:
        """Whether one round of a row is enough."""
        return self.device.type == "cuda" and row.endswith("eager")

    def mfu(self, flops: float, step_s: float) -> float | None:
        """Model FLOPs a second over the GPU's peak; None where that is not known."""
        if self.device.type != "cuda":
            return None
        peak = peak_flops(torch.cuda.get_device_name(), self.loops.precision)
        return None if peak is None else flops / step_s / peak

    def profile(self, step_ms: float) -> dict[str, Any]:
        """One compiled headless step by kernel.

        Args:
            step_ms: what a step takes without the profiler.
        """
        release(self.device)
        torch._inductor.config.cpp.enable_kernel_profile = True  # else they have no names
        torch._inductor.config.triton.unique_kernel_names = True
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        profile = torch.profiler.profile(activities=activities)
        stopwatch = Stopwatch(WARMUP + PROFILED, self.device)
        self.loops.ours(ContrastiveWeightTying(), True, stopwatch, profile)
        torch._inductor.config.cpp.enable_kernel_profile = False
        times = {k: t / PROFILED for k, t in kernel_times(profile, self.device).items()}
        classes: dict[str, float] = {}
        for name, took in times.items():
            classes[kernel_class(name)] = classes.get(kernel_class(name), 0.0) + took
        return {
            "ms_of_a_step": classes,
            "share_of_kernels": {k: t / sum(classes.values()) for k, t in classes.items()},
            "step_ms_unprofiled": step_ms,
            # What is no matrix product is all that a row kernel could save.
            "row_kernel_gain_at_most": classes.get("loss", 0.0) / step_ms,
            "longest": [
                {"name": name[:160], "class": kernel_class(name), "ms": took}
                for name, took in list(times.items())[:25]
            ],
        }

    def rows(
        self, compilation: tuple[bool, ...], with_theirs: bool
    ) -> dict[str, Callable[[Stopwatch], float]]:
        """Name and run of each row, compiled ones first."""

        def ours(made: type[Objective], compiled: bool, stopwatch: Stopwatch) -> float:
            return self.loops.ours(made(), compiled, stopwatch)

        found: dict[str, Callable[[Stopwatch], float]] = {}
        for compiled in compilation:
            how = "compiled" if compiled else "eager"
            for objective in (ContrastiveWeightTying, CrossEntropy):
                row = functools.partial(ours, objective, compiled)
                found[f"{objective.__name__} {how}"] = row
            if with_theirs:
                theirs = functools.partial(self.loops.hugging_face, compiled)
                found[f"Hugging Face Trainer {how}"] = theirs
        return found

    def run(
        self,
        repeats: int,
        compilation: tuple[bool, ...],
        deadline: Deadline,
        with_theirs: bool = True,
    ) -> dict[str, Any]:
        """All rows, in turn; on a GPU eager ones once, for they are the slower ones."""
        measured: dict[str, list[dict[str, Any]]] = {}
        skipped: dict[str, str] = {}
        for round_ in range(repeats):
            for name, row in self.rows(compilation, with_theirs).items():
                if name in skipped or (round_ and self.is_slow(name)):
                    continue
                if deadline.has_passed():
                    if name not in measured:
                        skipped[name] = "no time was left"
                    continue
                try:
                    last = self.measure(row)
                except torch.cuda.OutOfMemoryError:
                    skipped[name] = "does not fit"
                except Exception as error:
                    if not name.startswith("Hugging Face"):
                        raise
                    skipped[name] = f"{type(error).__name__}: {str(error).strip()[:200]}"
                else:
                    measured.setdefault(name, []).append(last)
                    shown = {k: round(v, 3) for k, v in last.items() if v is not None}
                    print(f"{self.name} {name}: {shown}", file=sys.stderr)
        return {"rows": measured, "skipped": skipped} | headline(measured)


def headline(measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the rows, and the ratios of the best of each kind."""
    median = {
        name: statistics.median(result["tokens_per_second"] for result in results)
        for name, results in measured.items()
    }

    def best(kind: str) -> float | None:
        return max((v for k, v in median.items() if k.startswith(kind)), default=None)

    headless, own, theirs = map(best, ("ContrastiveWeightTying", "CrossEntropy", "Hugging Face"))
    return {
        "tokens_per_second": median,
        "ratios": {
            "headless / own cross-entropy": ratio(headless, own),
            "own cross-entropy / Hugging Face Trainer": ratio(own, theirs),
            "headless / Hugging Face Trainer": ratio(headless, theirs),
        },
    }


def make_stream(directory: Path, num_tokens: int, vocab_size: int) -> TokenStream:
    """Random tokens that repeat as text does, as a mapped file like a prepared dataset's."""
    path, dtype = directory / tokens_file("train"), token_dtype(vocab_size)
    zipf_labels(num_tokens, vocab_size).astype(dtype).tofile(path)
    return TokenStream(path, dtype.str)


def targets(results: dict[str, Any]) -> dict[str, dict]:
    """What is aimed at on an H200."""
    aims: dict[str, tuple[float | None, str, float]] = {}
    if "pythia-70m" in results:
        found = results["pythia-70m"]["ratios"]
        for name, aim in (
            ("headless / own cross-entropy", 1.6),
            ("own cross-entropy / Hugging Face Trainer", 1.3),
        ):
            aims[f"70M: {name}"] = (found[name], ">=", aim)
    if "pythia-160m" in results:
        rows = results["pythia-160m"]["rows"]
        for kind in ("ContrastiveWeightTying", "CrossEntropy"):
            mfu = [r["mfu"] or 0.0 for r in rows.get(f"{kind} compiled", [])]
            aims[f"160M: MFU, {kind}"] = (max(mfu, default=0.0) or None, ">=", 0.4)
    return check_targets(aims)


def show(name: str, result: dict[str, Any]) -> None:
    """A table of a model."""
    for row, reason in result["skipped"].items():
        print(f"{name:12s} {row:36s} left out: {reason}")
    for row, value in result["tokens_per_second"].items():
        last = result["rows"][row][-1]
        mfu = "" if last["mfu"] is None else f", MFU {last['mfu']:.1%}"
        peak = "" if last["peak_gib"] is None else f", {last['peak_gib']:.1f} GiB"
        waiting = f"waiting for data {last['data_wait_share']:.1%}"
        print(f"{name:12s} {row:36s}{value:12,.0f} tokens/s, {waiting}{mfu}{peak}")
    for row, value in result["ratios"].items():
        print(f"{name:12s} {row:48s}" + ("-" if value is None else f"{value:.2f}"))
    if "profile" in result:
        shares = result["profile"]["share_of_kernels"].items()
        print(f"{name:12s} kernels: " + ", ".join(f"{k} {v:.1%}" for k, v in shares))
        bound = result["profile"]["row_kernel_gain_at_most"]
        print(f"{name:12s} a row kernel of the loss could gain at most {bound:.1%} of a step")


def table(results: dict[str, Any]) -> dict[str, float | None]:
    """What the documentation shows: ratios, tokens a second, MFU, memory."""
    rows: dict[str, float | None] = {}
    for model, result in results.items():
        measured = {name: ratio for name, ratio in result["ratios"].items() if ratio is not None}
        rows |= {f"{model}: {name}, tokens/s": ratio for name, ratio in measured.items()}
        for name, rate in result["tokens_per_second"].items():
            last = result["rows"][name][-1]
            rows[f"{model}: {name}, tokens/s"] = rate
            rows |= {f"{model}: {name}, {key}": last[key] for key in ("mfu", "peak_gib")}
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if gpu else "cpu")
    parser.add_argument("--models", nargs="+", help="some of the preset's")
    parser.add_argument("--data", type=Path, help="a prepared dataset instead of random tokens")
    parser.add_argument("--steps", type=int, help="timed steps")
    parser.add_argument("--batch", type=int, help="sequences of a micro-batch")
    parser.add_argument("--length", type=int, help="tokens of a sequence")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="begin no further row after so many")
    parser.add_argument("--workers", type=int, default=2 if gpu else 0, help="of the loader")
    parser.add_argument("--eager-only", action="store_true", help="without torch.compile")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/training.json"))
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    options = parse()
    deadline = Deadline(options.minutes)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    preset = dict(PRESETS[options.preset])
    given = {k: getattr(options, k) for k in ("steps", "batch", "length")}
    preset |= {k: value for k, value in given.items() if value is not None}
    models = {n: m for n, m in preset.pop("models").items() if n in (options.models or [n])}
    brief = preset.pop("brief", ())
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        if options.data:
            dataset = open_dataset(options.data, verify="size")
            stream, preset["v"] = dataset.split("train"), dataset.manifest.vocab_size
        else:
            needed = (WARMUP + preset["steps"]) * preset["batch"] * preset["length"] + 1
            stream = make_stream(Path(directory), needed, preset["v"])
        source = str(options.data) if options.data else "random tokens, Zipf-Mandelbrot"
        for name, backbone in models.items():
            bench = Bench(name, Loops(backbone, preset, stream, options.workers))
            compilation = (False,) if options.eager_only else (True, False)
            if name in brief:
                result = bench.run(1, compilation[:1], deadline, with_theirs=False)
            else:
                result = bench.run(options.repeats, compilation, deadline)
            rows = result["rows"].get("ContrastiveWeightTying compiled")
            if rows and name not in brief and not deadline.has_passed():
                step_ms = statistics.median(row["step_ms"] for row in rows)
                result["profile"] = bench.profile(step_ms)
            show(name, result)
            results[name] = result
            written = {
                "preset": {**preset, "warmup_steps": WARMUP, "data": source},
                "precision": bench.loops.precision,
                "threads": torch.get_num_threads(),
                "models": results,
            }
            if torch.cuda.is_available():
                written["targets"] = targets(results)
            write(options.output, written)  # each time: a run that is stopped keeps what it has
    show_rows(table(results), "scripts/bench_training.py")


if __name__ == "__main__":
    main()
