"""The next token by maximum-inner-product search, beside a matrix product and an argmax.

    python scripts/bench_decode.py [--preset cpu|smoke] [--model PLACE --data DIR] [--output F.json]

Recall@1 against the exact head in float64, queries a second, seconds to build and MiB, over the
output tables of real models and synthetic ones of up to a million rows. All ways take turns, so
that what disturbs one disturbs all. Each ratio is of seconds: matrix product / index.

A synthetic table has a power-law spectrum (the i-th principal axis has a standard deviation
proportional to i^-0.5) and a bias log p(v) with Zipf's p; a query is LIFT times a row drawn from p
and noise of the same spectrum, so that frequent tokens win most often and the own token often.

Shapes: V rows, D coordinates, Q queries.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarking import interleaved, ratio, summary, write
from torch import Tensor, nn

from headless.downstream.retrieval.decoder import FaissHead
from headless.downstream.retrieval.indexes import load_faiss

BATCHES = (1, 64)
LIFT = 10.0  # of a query towards its own row, and of its noise
QUERIES = 1024
# Ways to search, each with its settings from quick to thorough.
SETTINGS: dict[str, list[dict[str, int]]] = {
    "exact": [{}],
    "ivf": [{"nprobe": 4}, {"nprobe": 16}, {"nprobe": 64}],
    "hnsw": [{"efSearch": 32}, {"efSearch": 128}, {"efSearch": 512}],
}


class Case(NamedTuple):
    """A synthetic table, and which indexes of it are worth their building."""

    rows: int
    size: int
    kinds: tuple[str, ...]


FLAT = ("exact", "ivf", "hnsw")
PRESETS: dict[str, list[Case]] = {
    "smoke": [Case(3000, 16, FLAT)],
    "cpu": [
        Case(50_000, 256, FLAT),
        Case(50_000, 512, FLAT),
        Case(100_000, 256, FLAT),
        Case(250_000, 256, FLAT),
        Case(1_000_000, 128, ("exact", "ivf")),  # a graph takes too long to build here
    ],
}


class Problem(NamedTuple):
    """A head and hidden states that it is asked about."""

    name: str
    source: str
    linear: nn.Linear
    hidden_QD: Tensor


def synthetic(case: Case, queries: int, seed: int = 0) -> Problem:
    """See the module."""
    generator = torch.Generator().manual_seed(seed)
    spectrum_D = torch.arange(1, case.size + 1).float() ** -0.5
    spectrum_D /= spectrum_D.norm()
    weight_VD = torch.randn(case.rows, case.size, generator=generator) * spectrum_D
    log_p_V = -1.15 * torch.log(torch.arange(case.rows) + 3.0)
    log_p_V = log_p_V[torch.randperm(case.rows, generator=generator)].log_softmax(0)
    own_Q = torch.multinomial(log_p_V.exp(), queries, replacement=True, generator=generator)
    noise_QD = torch.randn(queries, case.size, generator=generator) * spectrum_D
    linear = nn.Linear(case.size, case.rows)
    with torch.no_grad():
        linear.weight.copy_(weight_VD)
        assert linear.bias is not None
        linear.bias.copy_(log_p_V)
    name = f"synthetic {case.rows:,} x {case.size}"
    return Problem(name, __doc__ or "", linear, LIFT * (weight_VD[own_Q] + noise_QD))


def real(place: str, data: Path, queries: int) -> Problem:
    """A model's output head, and its hidden states on a validation text."""
    from headless.downstream.loading import load
    from headless.downstream.retrieval.store import open_for, read_windows, window_length

    lm = load(place, needs_head=True)
    _, stream = open_for(lm, data, "validation")
    tokens = min(queries, len(stream) - 1)
    windows = read_windows(lm, stream, tokens, window_length(lm))
    hidden_QD = torch.cat([window.hidden_nD for window in windows])
    model: Any = lm.model
    linear = model.get_output_embeddings()
    name = f"{lm.name} ({lm.head} head) {linear.out_features:,} x {linear.in_features}"
    return Problem(name, f"{place}, hidden states on {data}", linear, hidden_QD)


@torch.no_grad()
def exact_best(linear: nn.Linear, hidden_QD: Tensor) -> Tensor:
    """The likeliest token of each query in float64, [Q]."""
    bias_V = 0.0 if linear.bias is None else linear.bias.double()
    weight_VD = linear.weight.double()
    return torch.cat([(h @ weight_VD.T + bias_V).argmax(-1) for h in hidden_QD.double().split(64)])


def built(linear: nn.Linear, kind: str) -> tuple[FaissHead, dict[str, float]]:
    """An index, and what it took."""
    begin = time.perf_counter()
    head = FaissHead(linear, kind, k=1)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begin
    return head, {
        "build_s": seconds,
        "index_mib": load_faiss().serialize_index(head.index.index).size / 2**20,
    }


@torch.no_grad()
def measure(problem: Problem, kinds: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """All ways on one head."""
    linear, hidden_QD = problem.linear, problem.hidden_QD
    best_Q = exact_best(linear, hidden_QD)
    product_Q = torch.cat([linear(h).argmax(-1) for h in hidden_QD.split(64)])
    ways: dict[str, dict[str, Any]] = {
        "matmul": {"recall_at_1": float((product_Q == best_Q).double().mean())}
    }
    for kind in kinds:
        head, cost = built(linear, kind)
        # One index in memory at a time: beside it the product is measured again.
        for setting in SETTINGS[kind]:
            name = " ".join([kind, *(f"{key}={value}" for key, value in setting.items())])
            for key, value in setting.items():
                load_faiss().ParameterSpace().set_index_parameter(head.index.index, key, value)
            ids_Q = head.search(hidden_QD)[1][:, 0]
            ways[name] = {"recall_at_1": float((ids_Q == best_Q).double().mean()), **cost}
            for batch in BATCHES:
                found = race(linear, head, hidden_QD, batch, repeats)
                ways[name][f"batch_{batch}"] = found
        del head
    return {
        "name": problem.name,
        "source": problem.source,
        "rows": linear.out_features,
        "size": linear.in_features,
        "queries": len(hidden_QD),
        "ways": ways,
    }


def race(
    linear: nn.Linear, head: FaissHead, hidden_QD: Tensor, batch: int, repeats: int
) -> dict[str, Any]:
    """Queries a second of the product and of the index, in turns, on other queries each time."""
    pieces = [p for p in hidden_QD.split(batch) if len(p) == batch]
    calls = max(1, min(8, 64 // batch, len(pieces)))  # single queries are too quick to time alone
    turn = {"matmul": 0, "index": 0}

    def some(name: str) -> list[Tensor]:
        turn[name] += 1
        return [pieces[(turn[name] * calls + i) % len(pieces)] for i in range(calls)]

    def product() -> None:
        for piece in some("matmul"):
            linear(piece).argmax(-1)

    def search() -> None:
        for piece in some("index"):
            head.search(piece)

    device = torch.device("cpu")
    seconds = interleaved({"matmul": product, "index": search}, device, repeats)
    rate = {k: calls * batch / float(np.median(v)) for k, v in seconds.items()}
    return {
        "queries_per_second": rate["index"],
        "matmul_queries_per_second": rate["matmul"],
        "matmul / index": ratio(rate["index"], rate["matmul"]),
        "seconds": {name: summary(times) for name, times in seconds.items()},
    }


def show(case: dict[str, Any]) -> None:
    """One line a way."""
    print(f"\n{case['name']}; {case['queries']:,} queries")
    print(
        f"{'':16s}{'recall@1':>9s}{'build s':>9s}{'MiB':>9s}"
        + "".join(f"{f'q/s at {b}':>12s}{'x product':>11s}" for b in BATCHES)
    )
    for name, way in case["ways"].items():
        line = f"{name:16s}{way['recall_at_1']:9.3f}"
        if "build_s" in way:
            line += f"{way['build_s']:9.1f}{way['index_mib']:9.1f}"
            for batch in BATCHES:
                found = way[f"batch_{batch}"]
                line += f"{found['queries_per_second']:12,.0f}{found['matmul / index']:11.2f}"
        print(line)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--model", nargs="*", default=[], help="runs or models with a real table")
    parser.add_argument("--data", type=Path, help="a prepared dataset of theirs: real queries")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/decode.json"))
    options = parser.parse_args()
    if options.model and options.data is None:
        parser.error("--model needs --data: real tables are asked with real hidden states")
    return options


def main() -> None:
    """Measure, print, write."""
    options = parse()
    load_faiss()  # what is missing shows before the work
    cases: list[dict[str, Any]] = []
    result = {
        "preset": options.preset,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "cases": cases,
    }
    begin = time.perf_counter()

    def record(problem: Problem, kinds: tuple[str, ...]) -> None:
        cases.append(measure(problem, kinds, options.repeats))
        show(cases[-1])
        # Each time: a sweep that is stopped keeps what it has.
        write(options.output, {**result, "seconds": time.perf_counter() - begin})

    for place in options.model:
        record(real(place, options.data, options.queries), FLAT)
    for case in PRESETS[options.preset]:
        record(synthetic(case, options.queries), case.kinds)


if __name__ == "__main__":
    main()
