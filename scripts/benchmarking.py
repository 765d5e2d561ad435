"""What the benchmarks share: labels, clocks, memory, kernels, and where results go."""

import gc
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headless.callbacks.memory import trim
from headless.runs.environment import describe_environment

# Zipf-Mandelbrot, p(rank) ~ (rank + 2)^-1.15 over at most 50,304 tokens: gives the numbers of
# unique targets that were counted in news and Wikipedia (2,048 rows: 0.8-0.9k; 8,192: 2.3-2.8k;
# 32,768: 5.6-7.7k; 131,072: 16-18k). Without the bound they would grow with the vocabulary.
EXPONENT, SHIFT, RANKS = 1.15, 2.0, 50304
SLEEP = 4_000_000  # cycles of a GPU, some 2 ms: longer than the host takes to launch a call


def zipf_labels(rows: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Labels [rows], int64, that repeat as English text does; frequent ids lie anywhere."""
    weights = (np.arange(1, min(vocab_size, RANKS) + 1) + SHIFT) ** -EXPONENT
    generator = np.random.default_rng(seed)
    id_of_rank = generator.permutation(vocab_size)
    return id_of_rank[generator.choice(len(weights), size=rows, p=weights / weights.sum())]


def text_labels(data: Path, rows: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Labels [rows], int64, from a prepared dataset: pieces of 1,024 tokens in a random order.

    Pieces come again where the text is too short, and ids beyond the vocabulary are folded into it.
    """
    manifest = json.loads((data / "manifest.json").read_text())
    tokens = np.memmap(data / "train.bin", dtype=manifest["dtype"], mode="r")
    piece = min(1024, len(tokens))
    order = np.random.default_rng(seed).permutation(len(tokens) // piece)
    order = np.resize(order, -(-rows // piece))
    labels = np.concatenate([tokens[i * piece : (i + 1) * piece] for i in order])[:rows]
    return labels.astype(np.int64) % vocab_size


def make_labels(data: Path | None, rows: int, vocab_size: int) -> tuple[np.ndarray, str]:
    """Labels [rows] and where they come from."""
    if data is None:
        law = f"Zipf-Mandelbrot, exponent {EXPONENT}, shift {SHIFT}, {RANKS} ranks at most"
        return zipf_labels(rows, vocab_size), law
    manifest = json.loads((data / "manifest.json").read_text())
    source = f"{data}, {manifest['vocab_size']} token ids"
    if manifest["vocab_size"] > vocab_size:
        source += f" folded into {vocab_size}"
    if manifest["splits"]["train"]["tokens"] < rows:
        source += ", text repeated"
    return text_labels(data, rows, vocab_size), source


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: CUDA events on a GPU, the wall clock on a CPU.

    The GPU sleeps before the first event, while the host launches: its own time is measured, not
    the host's.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(SLEEP)
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


class Deadline:
    """When to begin nothing more: so many minutes from now, or never."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def has_passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end


def interleaved(
    functions: dict[str, Callable[[], Any]], device: torch.device, repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each function, which take turns, so that what disturbs one disturbs all.

    One that runs out of a GPU's memory is left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(warmup + repeats):
        for name in list(seconds):
            try:
                took = seconds_of(functions[name], device)
            except torch.cuda.OutOfMemoryError:
                del seconds[name]
                continue
            if round_ >= warmup:
                seconds[name].append(took)
    return seconds


def memory_method(device: torch.device) -> str:
    """How `peak_bytes` counts."""
    if device.type == "cuda":
        return "CUDA: max_memory_allocated of the call minus what was allocated before"
    return "CPU: peak of the running sum of tensor allocations that torch's profiler records"


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """The most memory that tensors made by a call hold at once, beyond what was there before.

    Buffers inside a CPU library are in neither count; see `memory_method`.
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


def free_bytes(device: torch.device) -> int:
    """Memory that may be used."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 4 * 2**30


def release(device: torch.device) -> None:
    """Forget compiled graphs and give back what nobody holds any more."""
    torch._dynamo.reset()
    gc.collect()
    trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def graph_counters() -> dict[str, int]:
    """What torch.compile has done since its counters were cleared."""
    counters = torch._dynamo.utils.counters
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the best of ten: what limits are computed with."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = interleaved({"product": lambda: a @ b}, device, repeats=10)["product"]
    return 2.0 * size**3 / min(times)


# The first that fits. Compiled kernels are named after all operators that they fuse, so that one
# with the loss and something else in it counts as the loss.
KERNELS = {
    "loss": r"log_?softmax|nll_loss|prepare_softmax|cross_entropy",
    "attention": r"^(?!.*_fused_).*(flash|fmha|attention|sdpa)",
    "matmul": r"gemm|nvjet|xmma|cutlass|cublas|splitk|triton_tem|::(add|b|addb)?mm\b",
    "optimizer": r"adam|multi_tensor|foreach|vector_norm|optimizer",
}


def kernel_class(name: str) -> str:
    """What a kernel (on a CPU: an operator) is for, by its name."""
    for kind, pattern in KERNELS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "other"


def kernel_times(profile: Any, device: torch.device) -> dict[str, float]:
    """Milliseconds of each kernel of a profile, the longest first; on a CPU, of each operator."""
    times: dict[str, float] = {}
    for entry in profile.key_averages():
        if device.type == "cuda":
            # Annotations are drawn on the device's time line too, over the kernels they contain.
            on_cpu = entry.device_type == torch.autograd.DeviceType.CPU
            if on_cpu or getattr(entry, "is_user_annotation", False):
                continue
            took = entry.self_device_time_total
        else:
            took = entry.self_cpu_time_total
        if took > 0:
            times[entry.key] = times.get(entry.key, 0.0) + took / 1e3
    return dict(sorted(times.items(), key=lambda item: -item[1]))


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
        verdict = {None: "unknown", True: "met", False: "MISSED"}[met]
        print(f"{name}: {shown} (target {relation} {target:g}: {verdict})")
    return found


def show_rows(rows: dict[str, float | None], script: str) -> None:
    """What was measured as rows of the table in the documentation."""
    print()
    for name, value in rows.items():
        shown = (
            "not measured" if value is None else f"{value:,.0f}" if value >= 1e3 else f"{value:.3g}"
        )
        print(f"| {name} | {shown} | `{script}` |")


def write(path: Path, result: dict[str, Any]) -> None:
    """The result with machine, versions and commit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "environment": describe_environment()}, indent=2) + "\n")
    print(f"wrote {path}", file=sys.stderr)
