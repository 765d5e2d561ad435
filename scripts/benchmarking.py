"""What the GPU benchmarks share: clocks, memory, labels, and where results go."""

import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headless.runs.environment import describe_environment

# Zipf-Mandelbrot, p(rank) ~ (rank + 2)^-1.15: gives the numbers of unique targets that were counted
# in news and Wikipedia (2,048 rows: 0.8-0.9k; 8,192: 2.3-2.8k; 32,768: 5.6-7.7k; 131,072: 16-18k).
EXPONENT, SHIFT = 1.15, 2.0


def zipf_labels(rows: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Labels [rows] whose repetitions are those of English text in a BPE of 50k."""
    weights = (np.arange(1, vocab_size + 1) + SHIFT) ** -EXPONENT
    return np.random.default_rng(seed).choice(vocab_size, size=rows, p=weights / weights.sum())


def text_labels(data: Path, rows: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Labels [rows] from a prepared dataset: 1,024 tokens in a row from random places."""
    manifest = json.loads((data / "manifest.json").read_text())
    if manifest["vocab_size"] > vocab_size:
        raise SystemExit(f"{data} has {manifest['vocab_size']} token ids, more than {vocab_size}")
    tokens = np.memmap(data / "train.bin", dtype=manifest["dtype"], mode="r")
    piece = min(1024, rows, len(tokens))
    starts = np.random.default_rng(seed).integers(0, len(tokens) - piece + 1, -(-rows // piece))
    return np.concatenate([tokens[s : s + piece] for s in starts])[:rows].astype(np.int64)


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of one call, until the device is done."""
    synchronize(device)
    begin = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begin


def interleaved(
    functions: dict[str, Callable[[], Any]], device: torch.device, repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each function, which take turns, so that what disturbs one disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(warmup + repeats):
        for name, function in functions.items():
            took = seconds_of(function, device)
            if round_ >= warmup:
                seconds[name].append(took)
    return seconds


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """The most memory that tensors made by a call hold at once, beyond what was there before.

    On CUDA the allocator's own count. On the CPU the running sum of the allocations and releases
    that torch's profiler records.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product: what the limits are computed with."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = interleaved({"product": lambda: a @ b}, device, repeats=10)["product"]
    return 2.0 * size**3 / min(times)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and spread of repeats, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "median_ms": 1e3 * statistics.median(ordered),
        "min_ms": 1e3 * ordered[0],
        "max_ms": 1e3 * ordered[-1],
    }


def ratio(above: float | None, below: float | None) -> float | None:
    """above / below, None where one of them was not measured."""
    if above is None or below is None or not below or math.isnan(above):
        return None
    return above / below


def check_targets(targets: dict[str, tuple[float | None, str, float]]) -> dict[str, dict]:
    """Whether each figure is at least (">=") or at most ("<=") what was aimed at; None: unknown."""
    found = {}
    for name, (value, relation, target) in targets.items():
        met = None
        if value is not None:
            met = value >= target if relation == ">=" else value <= target
        found[name] = {"value": value, "target": f"{relation} {target:g}", "met": met}
        shown = "not measured" if value is None else f"{value:.2f}"
        print(f"{name}: {shown} (target {relation} {target:g})", file=sys.stderr)
    return found


def write(path: Path, result: dict[str, Any]) -> None:
    """The result with machine, versions and commit."""
    environment = describe_environment()
    if torch.cuda.is_available():
        environment["gpu"] = torch.cuda.get_device_name()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "environment": environment}, indent=2) + "\n")
    print(f"wrote {path}", file=sys.stderr)
