"""Time and memory of the loss alone, forward and backward, for every way to compute it.

    python scripts/bench_objectives.py [--preset cpu|gpu] [--data DIR] [--output FILE.json]

Each implementation is compared with a float64 reference before it is timed; one that is wrong is
reported as wrong. They take turns, so that what disturbs one disturbs all. Optional peers (Liger,
cut-cross-entropy, QuACK) run where they are installed. Needs torch and numpy only.

Shapes: N rows, D hidden size, V vocabulary, M unique targets.
"""

import argparse
import functools
import gc
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarking import (
    Deadline,
    check_targets,
    free_bytes,
    graph_counters,
    interleaved,
    make_labels,
    matmul_rate,
    memory_method,
    peak_bytes,
    ratio,
    release,
    show_rows,
    summary,
    write,
    zipf_labels,
)
from loss_implementations import (
    IMPLEMENTATIONS,
    Inputs,
    chunk_rows,
    contrastive_folded,
    contrastive_fused,
    errors,
    exact_step,
    is_right,
    make_inputs,
    step,
)

from headless.data.collate import unique_table
from headless.objectives import ContrastiveWeightTying

MAIN = (32768, 512, 50304)  # where the targets are set
STATIC = "cwt compiled, static M"  # measured at the first size alone
# (N, D, V): one of them varied at a time, and a large model's.
PRESETS: dict[str, list[tuple[int, int, int]]] = {
    "cpu": [(4096, 256, 8192), (2048, 256, 8192), (2048, 256, 32768)],
    "gpu": [
        MAIN,
        *((n, 512, 50304) for n in (2048, 8192, 131072)),
        *((32768, d, 50304) for d in (768, 2048)),
        *((32768, 512, v) for v in (32768, 131072, 262144)),
        (32768, 2048, 262144),
    ],
}


def reason_of(error: Exception) -> str:
    """One line for the record."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "does not fit"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def usable(device: torch.device, dtype: torch.dtype, names: list[str]) -> dict[str, dict[str, Any]]:
    """What each implementation does on a small problem: its errors, or why it is left out."""
    report: dict[str, dict[str, Any]] = {}
    small = make_inputs(zipf_labels(4200, 2048), 64, 2048, device, dtype)  # two chunks
    wanted = {"cwt": exact_step("cwt", small), "ce": exact_step("ce", small)}
    for name in names:
        kind, loss, compiled, _ = IMPLEMENTATIONS[name]
        try:
            made = step(torch.compile(loss) if compiled else loss, small)
            found = errors(made, wanted["ce" if kind == "ce" else "cwt"])
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and only it
            report[name] = {"skipped": reason_of(error)}
            continue
        report[name] = {"errors": found, "right": is_right(found, dtype)}
    release(device)
    return report


def columns(kind: str, n: int, m: int, v: int) -> int:
    """How many candidates a row is scored against."""
    return {"cwt": m, "paper": n, "ce": v}[kind]


def fits(name: str, n: int, m: int, v: int, device: torch.device) -> bool:
    """Whether to try. A GPU says when it cannot; on a CPU the system would end the process."""
    kind, _, _, blockwise = IMPLEMENTATIONS[name]
    bytes_a_score = 6 if device.type == "cuda" else 20
    rows = min(n, chunk_rows(n)) if blockwise else n
    return bytes_a_score * rows * columns(kind, n, m, v) < 0.9 * free_bytes(device)


def prepare(name: str, x: Inputs) -> Callable[[], Any]:
    """A call of a step; ours compiled as it is in a training run, where M changes."""
    _, loss, compiled, _ = IMPLEMENTATIONS[name]
    if not compiled:
        return functools.partial(step, loss, x)
    if loss in (contrastive_folded, contrastive_fused):
        return functools.partial(step, torch.compile(loss), x._replace(unique=x.unique.folded()))
    return functools.partial(step, torch.compile(loss, dynamic=False), x)


def measure(x: Inputs, names: list[str], repeats: int, rate: float) -> dict[str, Any]:
    """All implementations on one problem. A ratio `a / b` above 1 says that b is the better."""
    device = x.hidden_ND.device
    (n, d), v, m = x.hidden_ND.shape, len(x.table_VD), int((x.unique.count_M > 0).sum())
    results: dict[str, Any] = {}
    ready: dict[str, Callable[[], Any]] = {}
    for name in names:
        if not fits(name, n, m, v, device):
            results[name] = {"skipped": "does not fit"}
            continue
        try:
            begin = time.perf_counter()
            call = prepare(name, x)
            call()
            first = time.perf_counter() - begin
            results[name] = {"first_call_s": first, "peak_mib": peak_bytes(call, device) / 2**20}
            ready[name] = call
        except Exception as error:  # noqa: BLE001 - one that fails must not end the sweep
            results[name] = {"skipped": reason_of(error)}
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    seconds = interleaved(ready, device, repeats)
    for name in ready:
        timed = summary(seconds[name]) if name in seconds else {"skipped": "does not fit"}
        results[name] |= timed
    limits = {kind: 6e3 * n * columns(kind, n, m, v) * d / rate for kind in ("cwt", "paper", "ce")}
    case = {"n": n, "d": d, "v": v, "m": m, "m_padded": len(x.unique.ids_M), "limit_ms": limits}
    return {**case, "results": results, "ratios": ratios(results, limits)}


def ratios(results: dict[str, Any], limits: dict[str, float]) -> dict[str, float | None]:
    """The figures that matter; ours is compiled, where it was compiled."""

    def best(key: str, *names: str) -> float | None:
        return min((results[n][key] for n in names if key in results.get(n, {})), default=None)

    ours = "cwt compiled" if "median_ms" in results.get("cwt compiled", {}) else "cwt"
    eager_paper = ("paper N x N", "paper N x N, authors' form")
    ce = [name for name in results if IMPLEMENTATIONS[name].kind == "ce"]
    time_, memory = best("median_ms", ours), best("peak_mib", ours)
    fused = best("median_ms", "cwt fused", "cwt fused compiled")
    return {
        "paper_eager / cwt": ratio(best("median_ms", *eager_paper), time_),
        "paper_compiled / cwt": ratio(best("median_ms", "paper N x N compiled"), time_),
        "best_cross_entropy / cwt": ratio(best("median_ms", *ce), time_),
        "cwt / limit": ratio(time_, limits["cwt"]),
        "cwt fused / limit": ratio(fused, limits["cwt"]),
        "best_cross_entropy / limit": ratio(best("median_ms", *ce), limits["ce"]),
        "cwt memory / paper memory": ratio(memory, best("peak_mib", *eager_paper)),
        "cwt memory / best_cross_entropy memory": ratio(memory, best("peak_mib", *ce)),
    }


def graphs_of_a_training_loop(device: torch.device, dtype: torch.dtype, n: int = 16384) -> dict:
    """Graph breaks and compiled graphs of our objective over eight batches with other M each."""
    release(device)
    torch._dynamo.utils.counters.clear()
    objective = ContrastiveWeightTying().to(device)
    compiled = torch.compile(lambda x: objective(*x[:3], x[3].unfolded()).loss)
    sizes = []
    for seed in range(8):
        labels = zipf_labels(n, 32768, seed) % (600 * (1 + seed))
        x = make_inputs(labels, 64, 32768, device, dtype, seed)
        sizes.append(len(x.unique.ids_M))
        step(lambda x: compiled((x.hidden_ND, x.targets_N, x.table_VD, x.unique.folded())), x)
    found = graph_counters()
    # One function without a break is one graph, and each further one is a recompilation.
    recompilations = found["graphs"] - found["graph_breaks"] - 1
    return {"sizes": sizes, **found, "recompilations": recompilations}


def show(case: dict[str, Any]) -> None:
    """A table of a case."""
    print("\n" + " ".join(f"{key.upper()}={case[key]}" for key in "ndvm"))
    for name, result in case["results"].items():
        figures = result.get("skipped", "")
        if "median_ms" in result:
            spread = f"{result['min_ms']:.2f}-{result['max_ms']:.2f}"
            figures = f"{result['median_ms']:10.2f} ms {spread:>18s} {result['peak_mib']:10.0f} MiB"
        print(f"  {name:32s}{figures}")
    for name, value in case["ratios"].items():
        print(f"  {name:40s}" + ("-" if value is None else f"{value:8.2f}"))


def targets(case: dict[str, Any]) -> dict[str, dict]:
    """What is aimed at on an H200 at the main sizes in bf16."""
    aims = {
        "paper_eager / cwt": (">=", 10.0),
        "best_cross_entropy / cwt": (">=", 5.0),
        "cwt / limit": ("<=", 1.5),
        "cwt memory / paper memory": ("<=", 0.25),
    }
    return check_targets({name: (case["ratios"][name], *aim) for name, aim in aims.items()})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--preset", choices=PRESETS, default="gpu" if gpu else "cpu")
    for name in ("n", "d", "v"):
        parser.add_argument(
            f"--{name}", type=int, nargs="+", help="all combinations, not the preset's"
        )
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS))
    parser.add_argument("--eager-only", action="store_true", help="without torch.compile")
    parser.add_argument("--repeats", type=int, default=20 if gpu else 3)
    parser.add_argument("--minutes", type=float, help="begin no further size after so many")
    parser.add_argument("--data", type=Path, help="a prepared dataset to take the labels from")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/objectives.json"))
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    options = parse()
    deadline = Deadline(options.minutes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    preset = PRESETS[options.preset]
    given = [getattr(options, name) or [preset[0][i]] for i, name in enumerate("ndv")]
    sizes = itertools.product(*given) if options.n or options.d or options.v else iter(preset)
    skip = options.eager_only
    names = [n for n in options.implementations if not (skip and IMPLEMENTATIONS[n].compiled)]
    usability = usable(device, dtype, names)
    for name, found in usability.items():
        verdict = found.get("skipped") or ("right" if found["right"] else f"WRONG: {found}")
        print(f"{name:32s}{verdict}")
    names = [name for name, found in usability.items() if found.get("right")]
    rate = matmul_rate(device, dtype)
    cases: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "device": str(device),
        "dtype": str(dtype),
        "threads": torch.get_num_threads(),
        "memory": memory_method(device),
        "matmul_tflops": rate / 1e12,
        "implementations": usability,
        "cases": cases,
    }
    print(f"matrix products: {rate / 1e12:.2f} TFLOP/s")
    if not options.eager_only:
        result["compiled"] = graphs_of_a_training_loop(device, dtype)
        print(f"compiled, batches of other M: {result['compiled']}")
    for n, d, v in sizes:
        if deadline.has_passed():
            print(f"left out for want of time: N={n} D={d} V={v}")
            continue
        release(device)
        labels, source = make_labels(options.data, n, v)
        make_table = functools.partial(unique_table, labels, v)
        table = interleaved({"": make_table}, torch.device("cpu"), options.repeats)[""]
        inputs = make_inputs(labels, d, v, device, dtype)
        here = [name for name in names if name != STATIC or not cases]
        case = measure(inputs, here, options.repeats, rate)
        case |= {"labels": source, "unique_table_cpu": summary(table)}
        cases.append(case)
        show(case)
        if device.type == "cuda" and (n, d, v) == MAIN:
            result["targets"] = targets(case)
        write(options.output, result)  # each time: a sweep that is stopped keeps what it has
    rows = {}
    for case in cases:
        sizes_of_it = ", ".join(f"{key.upper()} = {case[key]:,}" for key in "ndv")
        rows |= {f"{name}; {sizes_of_it}": value for name, value in case["ratios"].items()}
    show_rows(rows, "scripts/bench_objectives.py")


if __name__ == "__main__":
    main()
