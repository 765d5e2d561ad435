"""Time and memory of the loss alone, forward and backward, for every way to compute it.

    python scripts/bench_objectives.py [--preset cpu|gpu] [--data DIR] [--output FILE.json]

Each implementation is compared with a float64 reference before it is timed; one that is wrong is
reported as wrong. They take turns, so that what disturbs one disturbs all. Optional peers (Liger,
cut-cross-entropy, QuACK) run where they are installed. Needs torch and numpy only.

Shapes: N rows, D hidden size, V vocabulary, M unique targets.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from benchmarking import (
    check_targets,
    interleaved,
    matmul_rate,
    peak_bytes,
    ratio,
    summary,
    text_labels,
    write,
    zipf_labels,
)
from torch import Tensor

from headless.data.collate import unique_table
from headless.objectives import (
    UniqueTargets,
    contrastive_weight_tying_loss,
    cross_entropy_loss,
    unique_targets,
)

PRESETS: dict[str, dict[str, list[int]]] = {
    "cpu": {"n": [2048, 4096], "d": [256], "v": [8192, 32768]},
    "gpu": {
        "n": [2048, 8192, 32768, 131072],
        "d": [512, 768, 2048],
        "v": [32768, 50304, 131072, 262144],
    },
}
MAIN = {"n": 32768, "d": 512, "v": 50304}  # where the targets are set
BYTES_A_SCORE = 16  # what an eager loss needs at its peak, about


class Inputs(NamedTuple):
    """One problem: leaves with gradients, labels, and their table."""

    hidden_ND: Tensor
    table_VD: Tensor
    targets_N: Tensor
    unique: UniqueTargets


Loss = Callable[[Inputs], Tensor]


def contrastive(x: Inputs) -> Tensor:
    """Ours."""
    return contrastive_weight_tying_loss(x.hidden_ND, x.targets_N, x.table_VD, unique=x.unique)


def paper(x: Inputs) -> Tensor:
    """The paper's N x N scores."""
    return contrastive_weight_tying_loss(
        x.hidden_ND, x.targets_N, x.table_VD, implementation="reference"
    )


def cross_entropy(x: Inputs, chunk_size: int | None = None) -> Tensor:
    """Ours over the whole vocabulary."""
    return cross_entropy_loss(x.hidden_ND, x.targets_N, x.table_VD, chunk_size=chunk_size)


def torch_chunked(x: Inputs) -> Tensor:
    """torch's own chunked operator, with large chunks (small ones lose precision in bf16)."""
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions(
        allow_retain_graph=True, batch_chunk_size=4096, chunking_method=None
    )
    return F.linear_cross_entropy(x.hidden_ND, x.table_VD, x.targets_N, options=options)  # type: ignore[attr-defined]


def liger(x: Inputs) -> Tensor:
    """Liger's fused linear cross-entropy, its weight gradient summed in float32."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(accum_dtype=torch.float32)
    return loss(x.table_VD, x.hidden_ND, x.targets_N)


def cut_cross_entropy(x: Inputs) -> Tensor:
    """Apple's cut cross-entropy."""
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(x.hidden_ND, x.table_VD, x.targets_N, impl="cce")


def quack(x: Inputs) -> Tensor:
    """QuACK's chunked linear cross-entropy."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy(x.hidden_ND, x.table_VD, x.targets_N, chunk_size=4096)


CHUNKED = functools.partial(cross_entropy, chunk_size=4096)
# name: (kind, function, compiled)
IMPLEMENTATIONS: dict[str, tuple[str, Loss, bool]] = {
    "cwt": ("cwt", contrastive, False),
    "cwt compiled": ("cwt", contrastive, True),
    "paper N x N": ("paper", paper, False),
    "paper N x N compiled": ("paper", paper, True),
    "cross-entropy": ("ce", cross_entropy, False),
    "cross-entropy compiled": ("ce", cross_entropy, True),
    "cross-entropy chunked": ("ce", CHUNKED, False),
    "cross-entropy chunked compiled": ("ce", CHUNKED, True),
    "torch linear_cross_entropy": ("ce", torch_chunked, False),
    "liger": ("ce", liger, False),
    "cut-cross-entropy": ("ce", cut_cross_entropy, False),
    "quack": ("ce", quack, False),
}

# These hold the scores of some rows only.
BLOCKWISE = {name for name in IMPLEMENTATIONS if "chunked" in name} | {
    "torch linear_cross_entropy",
    "liger",
    "cut-cross-entropy",
    "quack",
}


def make_inputs(
    labels: Any, d: int, v: int, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Inputs:
    """Hidden states of a normed model and a table whose scores have a spread of about one."""
    ids, inverse, count, _ = unique_table(labels, v)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(labels), d, generator=generator).to(device, dtype)
    table = (torch.randn(v, d, generator=generator) / d**0.5).to(device, dtype)
    tensors = (torch.from_numpy(x).to(device) for x in (ids, inverse, count))
    return Inputs(
        hidden.requires_grad_(),
        table.requires_grad_(),
        torch.from_numpy(labels).to(device),
        UniqueTargets(*tensors),
    )


def step(loss: Loss, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients."""
    value = loss(x)
    return (value, *torch.autograd.grad(value, (x.hidden_ND, x.table_VD)))


def errors(kind: str, loss: Loss, x: Inputs) -> dict[str, float]:
    """Relative errors of the loss and of both gradients against float64 on the same numbers."""
    exact = Inputs(
        x.hidden_ND.detach().double().requires_grad_(),
        x.table_VD.detach().double().requires_grad_(),
        x.targets_N,
        unique_targets(x.targets_N),
    )
    wanted = step(cross_entropy if kind == "ce" else paper, exact)
    found = step(loss, x)
    return {
        name: float((a.detach().double() - b.detach()).norm() / b.detach().norm())
        for name, a, b in zip(("loss", "d_hidden", "d_table"), found, wanted, strict=True)
    }


def is_right(found: dict[str, float], dtype: torch.dtype) -> bool:
    """Whether errors are what the dtype allows."""
    allowed = 2e-2 if dtype == torch.bfloat16 else 1e-4
    return all(error < allowed for error in found.values())


def usable(device: torch.device, dtype: torch.dtype, names: list[str]) -> dict[str, dict[str, Any]]:
    """What each implementation does on a small problem: its errors, or why it is left out."""
    report: dict[str, dict[str, Any]] = {}
    small = make_inputs(zipf_labels(5000, 2048), 64, 2048, device, dtype)  # two chunks
    for name in names:
        try:
            kind, loss, compiled = IMPLEMENTATIONS[name]
            found = errors(kind, torch.compile(loss) if compiled else loss, small)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and only it
            report[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[:1]}"}
            continue
        report[name] = {"errors": found, "right": is_right(found, dtype)}
    return report


def columns(kind: str, n: int, m: int, v: int) -> int:
    """How many candidates a row is scored against."""
    return {"cwt": m, "paper": n, "ce": v}[kind]


def free_bytes(device: torch.device) -> int:
    """Memory that may be used."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 4 * 2**30


def measure(x: Inputs, v: int, names: list[str], repeats: int, rate: float) -> dict[str, Any]:
    """All implementations on one problem."""
    device = x.hidden_ND.device
    (n, d), m = x.hidden_ND.shape, int((x.unique.count_M > 0).sum())
    results: dict[str, Any] = {}
    ready: dict[str, Callable[[], Any]] = {}
    for name in names:
        kind, loss, compiled = IMPLEMENTATIONS[name]
        rows = min(n, 4096) if name in BLOCKWISE else n
        if BYTES_A_SCORE * rows * columns(kind, n, m, v) > 0.8 * free_bytes(device):
            results[name] = {"skipped": "does not fit"}
            continue
        call = functools.partial(step, torch.compile(loss) if compiled else loss, x)
        try:
            begin = time.perf_counter()
            call()
            first = time.perf_counter() - begin
            results[name] = {"first_call_s": first, "peak_mib": peak_bytes(call, device) / 2**20}
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            results[name] = {"skipped": str(error).splitlines()[0][:200]}
            continue
        ready[name] = call
    for name, seconds in interleaved(ready, device, repeats).items():
        results[name] |= summary(seconds)
    limits = {kind: 6e3 * n * columns(kind, n, m, v) * d / rate for kind in ("cwt", "paper", "ce")}
    return {"n": n, "d": d, "v": v, "m": m, "limit_ms": limits, "results": results}


def best(case: dict[str, Any], kind: str, key: str = "median_ms") -> float | None:
    """The smallest figure of the implementations of a kind."""
    values = [
        result[key]
        for name, result in case["results"].items()
        if IMPLEMENTATIONS[name][0] == kind and key in result
    ]
    return min(values, default=None)


def ratios(case: dict[str, Any]) -> dict[str, float | None]:
    """The figures that matter; a ratio above one says that CWT is faster or smaller."""

    def of(name: str, key: str) -> float | None:
        return case["results"].get(name, {}).get(key)

    ours = best(case, "cwt")
    return {
        "paper_eager / cwt": ratio(of("paper N x N", "median_ms"), ours),
        "best_cross_entropy / cwt": ratio(best(case, "ce"), ours),
        "cwt / limit": ratio(ours, case["limit_ms"]["cwt"]),
        "best_cross_entropy / limit": ratio(best(case, "ce"), case["limit_ms"]["ce"]),
        "cwt memory / paper memory": ratio(
            best(case, "cwt", "peak_mib"), of("paper N x N", "peak_mib")
        ),
        "cwt memory / best_cross_entropy memory": ratio(
            best(case, "cwt", "peak_mib"), best(case, "ce", "peak_mib")
        ),
    }


def graphs_of_a_training_loop(device: torch.device, dtype: torch.dtype, n: int = 4096) -> dict:
    """Graph breaks and compiled graphs of our loss over eight batches with other M each."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loss = torch.compile(contrastive)
    sizes = []
    for seed in range(8):
        labels = zipf_labels(n * (1 + seed % 3) // 3, 32768, seed)
        labels = labels[torch.randint(len(labels), (n,)).numpy()]  # the same N, another M
        x = make_inputs(labels, 64, 32768, device, dtype, seed)
        sizes.append(len(x.unique.ids_M))
        step(loss, x)
    counters = torch._dynamo.utils.counters
    return {
        "batches": len(sizes),
        "distinct_sizes": len(set(sizes)),
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if gpu else "cpu")
    for name in ("n", "d", "v"):
        parser.add_argument(f"--{name}", type=int, nargs="+", help="instead of the preset's")
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS))
    parser.add_argument("--repeats", type=int, default=10 if gpu else 3)
    parser.add_argument("--data", type=Path, help="a prepared dataset to take the labels from")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/objectives.json"))
    options = parser.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    dtype = torch.bfloat16 if gpu else torch.float32
    torch._dynamo.config.cache_size_limit = 64
    grid = {k: getattr(options, k) or PRESETS[options.preset][k] for k in ("n", "d", "v")}
    usability = usable(device, dtype, options.implementations)
    for name, found in usability.items():
        print(f"{name}: {found}", file=sys.stderr)
    names = [name for name, found in usability.items() if found.get("right")]
    rate = matmul_rate(device, dtype)
    cases = []
    for n in grid["n"]:
        for d in grid["d"]:
            for v in grid["v"]:
                torch._dynamo.reset()
                if options.data:
                    labels = text_labels(options.data, n, v)
                else:
                    labels = zipf_labels(n, v)
                x = make_inputs(labels, d, v, device, dtype)
                case = measure(x, v, names, options.repeats, rate)
                case["ratios"] = ratios(case)
                cases.append(case)
                print(f"\nN={n} D={d} V={v} M={case['m']}")
                for name, result in case["results"].items():
                    if "median_ms" in result:
                        figures = f"{result['median_ms']:10.2f} ms {result['peak_mib']:10.0f} MiB"
                    else:
                        figures = result["skipped"]
                    print(f"  {name:32s}{figures}")
                for name, value in case["ratios"].items():
                    print(f"  {name:40s}" + ("-" if value is None else f"{value:8.2f}"))
                del x
    begin = time.perf_counter()
    for _ in range(5):
        unique_table(zipf_labels(32768, 50304), 50304)
    result: dict[str, Any] = {
        "device": str(device),
        "dtype": str(dtype),
        "labels": str(options.data) if options.data else "Zipf-Mandelbrot, exponent 1.15, shift 2",
        "matmul_tflops": rate / 1e12,
        "implementations": usability,
        "cases": cases,
        "unique_table_32768_ms": (time.perf_counter() - begin) / 5 * 1e3,
        "compiled": graphs_of_a_training_loop(device, dtype),
    }
    main_case = [c for c in cases if all(c[k] == MAIN[k] for k in MAIN)]
    if gpu and main_case:
        found = main_case[0]["ratios"]
        result["targets"] = check_targets(
            {
                "paper_eager / cwt": (found["paper_eager / cwt"], ">=", 10),
                "best_cross_entropy / cwt": (found["best_cross_entropy / cwt"], ">=", 5),
                "cwt / limit": (found["cwt / limit"], "<=", 1.5),
                "cwt memory / paper memory": (found["cwt memory / paper memory"], "<=", 0.25),
            }
        )
    write(options.output, result)


if __name__ == "__main__":
    main()
