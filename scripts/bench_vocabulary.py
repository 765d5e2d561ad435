"""A training step against the size of the vocabulary: seconds by part, and peak memory.

    python scripts/bench_vocabulary.py [--sizes 4096 32768 ...] [--output FILE.json]

Headless with each optimizer of the table (dense, lazy, rowwise), and cross-entropy (tied; eager,
compiled, in chunks), with one backbone, on the same four batches in turn. All rows of one size, and
a headless step at the smallest size beside them, take turns in one process. Tokens follow
Zipf-Mandelbrot over at most 50,304 ranks, spread over the whole vocabulary. A step is what training
does: the collator's table, forward, loss, backward, clipping by the norm, the optimizer. Memory is
what a step holds at its peak beyond weights and optimizer states.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarking import peak_bytes, ratio, release, synchronize, write, zipf_labels

from headless.data.collate import touched_table, unique_table
from headless.models.backbone import BackboneConfig
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective
from headless.training.devices import keep_freed_memory
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig, ScheduleConfig, build_optimizer
from headless.training.step import clip, gradient_norm
from headless.training.touched import look_up

HEADLESS = {f"headless, {table}": table for table in ("lazy", "rowwise", "dense")}
CHUNKED = partial(CrossEntropy, tied=True, unigram_bias="fixed")
WHOLE = partial(CHUNKED, chunk_size=None)
SOFTMAX: dict[str, Callable[[], Objective]] = {
    "cross-entropy": WHOLE,
    "cross-entropy, compiled": WHOLE,
    "cross-entropy, chunked": CHUNKED,
}
BATCHES = 4
PARTS = ("collate", "look up", "forward", "loss", "backward", "clip", "optimizer")


class Step:
    """A training step of one row at one size; called, it gives the seconds of its parts."""

    def __init__(self, row: str, vocab_size: int, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.row, self.vocab_size, self.device = row, vocab_size, options.device
        table: Any = HEADLESS.get(row, "dense")
        objective = SOFTMAX[row]() if row in SOFTMAX else ContrastiveWeightTying()
        optimizer = OptimizerConfig(table=table)
        backbone = BackboneConfig(
            model_type="gpt_neox",
            hidden_size=options.width,
            num_hidden_layers=2,
            num_attention_heads=options.width // 64,
            max_position_embeddings=options.length,
        )
        self.module = PretrainingModule(
            objective, backbone, optimizer, vocab_size=vocab_size, sequence_length=options.length
        )
        self.module.to(self.device).train().on_fit_start()
        self.loss: Any = self.module.objective
        if "compiled" in row:
            torch.compiler.reset()  # torch counts the graphs of a process
            self.loss = torch.compile(self.loss, dynamic=False)
        self.optimizer, _ = build_optimizer(self.module, optimizer, ScheduleConfig(), 1000)
        shape = options.tokens // options.length, options.length
        labels = [
            zipf_labels(options.tokens, vocab_size, seed).reshape(shape)
            for seed in range(BATCHES + 1)
        ]
        self.batches = cycle(pairwise(labels))  # so that some rows rest
        self.autocast = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    def __call__(self) -> dict[str, float]:
        """One step."""
        module, marks = self.module, [self.now()]
        batch = self.collate()
        marks.append(self.now())
        unique = module._unique(batch)  # type: ignore[arg-type]
        ids, table = batch["input_ids"], module.embedding_VD
        if module._touched:
            ids = batch["table_inputs"]
            unique, (table,) = look_up(module._touched, batch, unique)  # type: ignore[arg-type, assignment]
        marks.append(self.now())
        with self.autocast:
            hidden = module.scored_states(ids, None, table if module._touched else None)
            marks.append(self.now())
            loss = self.loss(hidden, batch["targets"].flatten(), table, unique).loss
        marks.append(self.now())
        loss.backward()
        marks.append(self.now())
        for touched in module._touched:
            touched.close()
        clip(module._trained(), 1.0, gradient_norm(module._trained()))
        marks.append(self.now())
        self.optimizer.step()
        self.optimizer.zero_grad()
        marks.append(self.now())
        return dict(zip(PARTS, np.diff(marks).tolist(), strict=True))

    def collate(self) -> dict[str, Any]:
        """The collator's part."""
        inputs, targets = next(self.batches)
        arrays = {"input_ids": inputs, "targets": targets}
        number = 0
        if self.module.objective.needs_unique:
            ids, inverse, counts, number = unique_table(targets.reshape(-1), self.vocab_size)
            arrays |= {"unique_ids": ids, "unique_inverse": inverse, "unique_counts": counts}
        made: dict[str, Any] = {name: torch.from_numpy(x) for name, x in arrays.items()}
        if self.module._touched:
            made |= touched_table(inputs, ids, number, 512)
        moved = {k: v.to(self.device) if hasattr(v, "to") else v for k, v in made.items()}
        return moved | {"num_unique": number}

    def now(self) -> float:
        """Seconds, with all of the device's work done."""
        synchronize(self.device)
        return time.perf_counter()


def measure(rows: list[str], vocab_size: int, options: argparse.Namespace) -> dict[str, Any]:
    """The rows of one size, in turn with the reference: headless, lazy, at the smallest size."""
    reference, small = "reference", options.sizes[0]
    steps = {row: Step(row, vocab_size, options) for row in rows}
    steps[reference] = Step("headless, lazy", small, options)
    taken: dict[str, list[dict[str, float]]] = {row: [] for row in steps}
    for turn in range(options.warmup + options.repeats):
        for row, step in steps.items():
            found = step()
            if turn >= options.warmup:
                taken[row].append(found)
    medians = {
        row: statistics.median(sum(x.values()) for x in found) for row, found in taken.items()
    }
    result = {}
    for row in rows:
        parts = {p: 1e3 * statistics.median(x[p] for x in taken[row]) for p in PARTS}
        parameters = sum(p.numel() * p.element_size() for p in steps[row].module.parameters())
        states = steps[row].optimizer.state.values()
        held = sum(t.numel() * t.element_size() for s in states for t in s.values())
        result[row] = {
            "step_ms": 1e3 * medians[row],
            "parts_ms": parts,
            "of_the_smallest": ratio(medians[row], medians[reference]),
            "parameters_mib": parameters / 2**20,
            "states_mib": held / 2**20,
            "peak_beyond_mib": peak_bytes(steps[row], options.device) / 2**20,
        }
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[2**k for k in (12, 15, 17, 19, 20)]
    )
    parser.add_argument("--width", type=int, default=192, help="D")
    parser.add_argument("--tokens", type=int, default=4096, help="N, of a step")
    parser.add_argument("--length", type=int, default=128, help="of a sequence")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--softmax-up-to", type=int, default=2**19, help="largest V of a softmax")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/vocabulary.json"))
    options = parser.parse_args()
    options.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory(options.device)
    results: dict[str, Any] = {}
    for vocab_size in options.sizes:
        rows = list(HEADLESS)
        if vocab_size <= options.softmax_up_to:
            whole = 4 * vocab_size * options.tokens <= 4 * 2**30  # logits in one piece
            rows += [row for row in SOFTMAX if whole or "chunked" in row]
        results[str(vocab_size)] = found = measure(rows, vocab_size, options)
        release(options.device)
        best = min((found[row]["step_ms"] for row in SOFTMAX if row in found), default=None)
        for row, values in found.items():
            values["best softmax / this"] = ratio(best, values["step_ms"])
            parts = ", ".join(f"{k} {v:.0f}" for k, v in values["parts_ms"].items())
            print(
                f"V {vocab_size:8,d} {row:24s}{values['step_ms']:9.1f} ms "
                f"({values['of_the_smallest']:.2f} of headless, lazy at V {options.sizes[0]:,d}); "
                f"peak beyond {values['peak_beyond_mib']:.0f} MiB; {parts}",
                flush=True,
            )
        written = {k: getattr(options, k) for k in ("width", "tokens", "length", "repeats")}
        write(options.output, {**written, "threads": torch.get_num_threads(), "sizes": results})


if __name__ == "__main__":
    main()
