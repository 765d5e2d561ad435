"""What a training step costs by formula, and measured: the numbers of docs/scaling.md.

    python scripts/check_scaling.py [--layers 4] [--hidden 128] [--output benchmarks/scaling.json]

FLOPs (torch's counter), bytes of parameters, gradients and optimizer states, bytes of the loss at
its peak (torch's profiler), and bytes on the wire of two processes (gloo), for each objective, of a
small model on the CPU. Then the same formulas for a model of 1 billion parameters on 64 GPUs.

Shapes: N rows, D hidden size, V vocabulary, M unique targets, L layers, T sequence length.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from benchmarking import peak_bytes, write
from scaling_formulas import Model, ddp_bytes, fsdp_bytes, loss_bytes, model_bytes, on_paper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from headless.data.collate import unique_table
from headless.models.backbone import (
    BackboneConfig,
    build_backbone,
    embedding_table,
    hidden_states,
)
from headless.models.flops import backbone_flops_per_token, scoring_flops
from headless.models.sharding import shard
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective, UniqueTargets
from headless.training.compat import ddp_options

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "cross-entropy": lambda: CrossEntropy(chunk_size=None),
    "headless": ContrastiveWeightTying,
    "headless, global negatives": lambda: ContrastiveWeightTying(negatives="global"),
    "headless, N x N": lambda: ContrastiveWeightTying(implementation="reference"),
}


# -- a step --------------------------------------------------------------------------------------


class Step(nn.Module):
    """What a rank computes: the loss of a batch."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.backbone = build_backbone(
            BackboneConfig(
                model_type="gpt_neox",
                hidden_size=model.hidden,
                num_hidden_layers=model.layers,
                num_attention_heads=model.heads,
                intermediate_size=4 * model.hidden,
                max_position_embeddings=model.length,
                attn_implementation="eager",  # matrix products, that torch's counter sees
            ),
            vocab_size=model.vocab,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.objective = objective
        objective.setup(model.vocab, model.hidden, 0.02)

    def forward(self, input_ids_BT: Tensor, targets_N: Tensor, unique: Any) -> Tensor:
        """The loss."""
        hidden_ND = hidden_states(self.backbone, input_ids_BT).flatten(0, 1)
        return self.objective(hidden_ND, targets_N, embedding_table(self.backbone), unique).loss


def zipf_tokens(model: Model, sequences: int, seed: int = 0) -> Tensor:
    """Sequences [B, T + 1] of tokens as frequent as the words of a text."""
    generator = torch.Generator().manual_seed(seed)
    frequency_V = 1.0 / torch.arange(1, model.vocab + 1)
    drawn = torch.multinomial(
        frequency_V, sequences * (model.length + 1), replacement=True, generator=generator
    )
    return drawn.view(sequences, model.length + 1)


def batch(model: Model, sequences: int, others: int = 0, rank: int = 0) -> tuple[Any, ...]:
    """Inputs, targets and table of a rank's micro-batch, with the targets of `others` in it."""
    tokens = zipf_tokens(model, sequences, seed=rank)
    targets_N = tokens[:, 1:].reshape(-1)
    beside = [zipf_tokens(model, sequences, seed=100 + i)[:, 1:].reshape(-1) for i in range(others)]
    ids, inverse, counts, _ = unique_table(
        targets_N.numpy(), model.vocab, 1, torch.cat(beside).numpy() if beside else None
    )
    unique = UniqueTargets(*(torch.from_numpy(x) for x in (ids, inverse, counts)))
    return tokens[:, :-1], targets_N, unique


def row(quantity: str, objective: str, formula: float, measured: float) -> dict[str, Any]:
    """A line of the table."""
    error = measured / formula - 1 if formula else float(measured != 0)
    return {
        "quantity": quantity,
        "objective": objective,
        "formula": formula,
        "measured": measured,
        "relative_error": error,
    }


def candidates_of(name: str, model: Model, unique: UniqueTargets, rows: int) -> int:
    """K: how many vectors a row is scored against."""
    return OBJECTIVES[name]().num_candidates(model.vocab, len(unique.ids_M), rows)


def others_of(name: str) -> int:
    """Other devices of the step whose targets are negatives, in the measurements here."""
    return 3 if "global" in name else 0


# -- measurements --------------------------------------------------------------------------------


def check_flops(model: Model, sequences: int) -> list[dict[str, Any]]:
    """Forward and backward of a real step."""
    found = []
    rows = sequences * model.length
    for name, make in OBJECTIVES.items():
        step = Step(model, make())
        arguments = batch(model, sequences, others_of(name))
        with FlopCounterMode(display=False) as counter:
            step(*arguments).backward()
        scoring = scoring_flops(rows, candidates_of(name, model, arguments[2], rows), model.hidden)
        backbone = rows * backbone_flops_per_token(step.backbone, model.length)
        assert backbone == model.backbone_flops(rows)
        counted = float(counter.get_total_flops())
        found.append(row("FLOPs of a step", name, backbone + scoring, counted))
        whole = backbone + scoring + model.unmasked_attention_flops(rows)
        found.append(row("FLOPs of a step, unmasked attention", name, whole, counted))
    return found


def check_states(model: Model, sequences: int) -> list[dict[str, Any]]:
    """Bytes of what a step leaves behind."""
    found = []
    for name in ("cross-entropy", "headless"):
        step = Step(model, OBJECTIVES[name]())
        optimizer = torch.optim.AdamW(step.parameters())
        step(*batch(model, sequences)).backward()
        optimizer.step()
        moments = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
        measured = {
            "parameters": sum(p.nbytes for p in step.parameters()),
            "gradients": sum(p.grad.nbytes for p in step.parameters() if p.grad is not None),
            "optimizer": sum(v.nbytes for v in moments),
        }
        for part, formula in model_bytes(model.parameters(name == "cross-entropy")).items():
            found.append(row(f"bytes of {part}", name, formula, measured[part]))
    return found


def check_loss_memory(model: Model, sequences: int) -> list[dict[str, Any]]:
    """Peak bytes of the loss, forward and backward alone, in float32."""
    found = []
    rows = sequences * model.length
    for name, make in OBJECTIVES.items():
        objective = make()
        objective.setup(model.vocab, model.hidden, 0.02)
        _, targets_N, unique = batch(model, sequences, others_of(name))
        hidden_ND = torch.randn(rows, model.hidden, requires_grad=True)
        embedding_VD = torch.randn(model.vocab, model.hidden, requires_grad=True)

        def work() -> None:
            objective(hidden_ND, targets_N, embedding_VD, unique).loss.backward()  # noqa: B023

        work()  # gradients exist: they are counted elsewhere
        count = candidates_of(name, model, unique, rows)
        formula = loss_bytes(rows, count, model.hidden, gathers=name != "cross-entropy")
        found.append(
            row("peak bytes of the loss", name, formula, peak_bytes(work, torch.device("cpu")))
        )
    return found


class Wire(TorchDispatchMode):
    """Counts the bytes that a device sends in collectives, as ring algorithms send them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0.0
        self.calls: Counter[str] = Counter()
        share = (dist.get_world_size() - 1) / dist.get_world_size()
        # For each operation: which argument holds what of all ranks, and how often it travels.
        self.costs = {
            "allreduce_": (0, 2 * share),
            "_allgather_base_": (0, share),
            "_reduce_scatter_base_": (1, share),
            "broadcast_": (0, 1.0),
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation passes here."""
        if func.namespace == "c10d":
            name = func.__name__.split(".")[0]
            self.calls[name] += 1
            if name not in self.costs:
                raise RuntimeError(f"a collective of unknown cost: {name}")
            which, times = self.costs[name]
            tensors = [args[which]] if isinstance(args[which], Tensor) else args[which]
            self.bytes += times * sum(tensor.nbytes for tensor in tensors)
        return func(*args, **(kwargs or {}))


def wire_worker(rank: int, world: int, store: str, model: Model, sequences: int) -> None:
    """One process of `check_wire`: a step under DDP and one under FSDP, for both objectives."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name in ("cross-entropy", "headless, global negatives"):
        for kind in ("DDP", "FSDP"):
            torch.manual_seed(0)
            step = Step(model, OBJECTIVES[name]())
            spread: nn.Module = step
            if kind == "DDP":
                spread = nn.parallel.DistributedDataParallel(step, **ddp_options())
            else:
                shard(step, step.backbone, dist.init_device_mesh("cpu", (world,)))
            arguments = batch(model, sequences, others=world - 1, rank=rank)
            with Wire() as wire:
                spread(*arguments).backward()
            found[f"{kind}: {name}"] = wire.bytes
    if rank == 0:
        Path(f"{store}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def check_wire(model: Model, sequences: int, world: int = 2) -> list[dict[str, Any]]:
    """Bytes that a device sends in a step, of two processes."""
    with tempfile.TemporaryDirectory() as directory:
        store = str(Path(directory) / "store")
        torch.multiprocessing.spawn(
            wire_worker, (world, store, model, sequences), nprocs=world, join=True
        )
        measured = json.loads(Path(f"{store}.json").read_text())
    found = []
    for key, value in measured.items():
        kind, name = key.split(": ")
        parameters = model.parameters(name == "cross-entropy")
        formula = (
            ddp_bytes(parameters, world) if kind == "DDP" else fsdp_bytes(model, parameters, world)
        )
        found.append(row(f"bytes sent a step, {kind}", name, formula, value))
    return found


def time_table(rows: int, others: int, vocab: int) -> float:
    """Milliseconds to make the table of unique targets from this many targets, on one core."""
    zipf = 1.0 / np.arange(1, vocab + 1)
    draw = np.random.default_rng(0)
    own, beside = (draw.choice(vocab, n, p=zipf / zipf.sum()) for n in (rows, others))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        unique_table(own, vocab, 512, beside)
        seconds.append(time.perf_counter() - begin)
    return 1e3 * sorted(seconds)[2]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/scaling.json"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the spawned processes
    model = Model(options.layers, options.hidden, 4, options.vocab, options.length)
    table = []
    for check in (check_flops, check_states, check_loss_memory, check_wire):
        print(f"{check.__name__} …", file=sys.stderr)
        table += check(model, options.sequences)
    for line in table:
        print(
            f"{line['quantity']:36} {line['objective']:28} {line['formula']:16,.1f} "
            f"{line['measured']:16,.1f} {100 * line['relative_error']:8.2f} %"
        )
    billion = Model(layers=16, hidden=2048, heads=8, vocab=50304, length=2048)
    paper = on_paper(billion, 4, 64, unique_here=2550, unique_everywhere=32_500)
    print("\n1 billion parameters on 64 devices, per device and step")
    for key in paper["headless"]:
        cells = "".join(f"{values[key]:12,.3f}" for values in paper.values())
        print(f"{key:26}{cells}")
    took = time_table(8192, 63 * 8192, 50304)
    print(f"\ntable of unique targets, 524,288 targets: {took:.1f} ms")
    result = {
        "model": asdict(model),
        "sequences": options.sequences,
        "checks": table,
        "billion": {"model": asdict(billion), "devices": 64, "costs": paper},
        "unique_table_ms": took,
    }
    write(options.output, result)


if __name__ == "__main__":
    main()
