"""What a training step asks of a GPU, counted where a stub stands in for its driver.

    ENVIRONMENT/gpu-trace run -- scripts/gpu_trace.py --model pythia-70m --objective cwt FILE.json

`check_gpu_trace.py` starts this once for each row; docs/contributing.md says what the stub is. The
steps are those of `bench_training.py`. Nothing here depends on the numbers, which are garbage.
"""

import argparse
import collections
import ctypes
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import training_loops
from bench_training import PRESETS, make_stream
from benchmarking import graph_counters, zipf_labels

from headless.data.collate import unique_table
from headless.models.backbone import BackboneConfig, build_backbone
from headless.models.flops import backbone_flops_per_token, matrix_weights, scoring_flops
from headless.objectives import ContrastiveWeightTying, CrossEntropy, Objective
from headless.runs.environment import describe_environment
from headless.training.module import PretrainingModule

WARMUP, STEPS = 3, 4  # compilation and the allocator; counted
SHALLOW = {"num_hidden_layers": 4, "max_position_embeddings": 2048}
MODELS = {
    "pythia-70m": BackboneConfig(preset="pythia-70m"),
    "pythia-160m": BackboneConfig(preset="pythia-160m"),
    "gpt2, 4 layers": BackboneConfig(preset="gpt2", **SHALLOW),
    "llama, 4 layers": BackboneConfig(preset="llama-135m", **SHALLOW),
}
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "cwt": ContrastiveWeightTying,
    "cwt-fused": lambda: ContrastiveWeightTying(implementation="fused"),
    "ce": CrossEntropy,
}
THEIRS = "hugging-face"
# A backward pass of flash attention makes the scores again: 5 products where the forward has 2.
FLASH_PASSES = 3.5 / 3


class Driver:
    """The counters of the stub's library: how often each thing was asked, by its name.

    A name begins with K (a kernel of PyTorch's), T (Triton's), G (a matrix product), memset, copy,
    or SYNC (the host waits).
    """

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])

    def reset(self) -> None:
        """Count from here."""
        self.library.fakegpu_reset()

    def counts(self) -> dict[str, int]:
        """What was asked since the last reset."""
        with tempfile.NamedTemporaryFile() as file:
            self.library.fakegpu_dump(file.name.encode())
            rows = (line.split("\t", 1) for line in Path(file.name).read_text().splitlines())
            return {name: int(count) for count, name in rows}


def gigabytes_of(arguments: Iterable[Any]) -> float:
    """The size of the tensors among a kernel's arguments."""
    return sum(a.nbytes for a in arguments if isinstance(a, torch.Tensor)) / 1e9


class TritonBytes:
    """Gigabytes that Triton's kernels read and write, each buffer once.

    Inductor says it of its own; of one that somebody wrote, it is the size of all its tensors.
    """

    def __init__(self) -> None:
        import torch._inductor.config as inductor
        from torch._inductor.runtime.triton_heuristics import CachingAutotuner
        from triton.runtime.jit import JITFunction

        inductor.benchmark_kernel = True  # Inductor then notes the bytes of each kernel
        self.gigabytes: collections.Counter[str] = collections.Counter()
        run, launch = CachingAutotuner.run, JITFunction.run

        def counted(tuner: Any, *arguments: Any, **options: Any) -> Any:
            told = tuner.inductor_meta.get("kernel_num_gb")
            self.gigabytes[tuner.fn.__name__] += gigabytes_of(arguments) if told is None else told
            return run(tuner, *arguments, **options)

        def launched(kernel: Any, *arguments: Any, **options: Any) -> Any:
            if not options.get("warmup"):
                named = [value for name, value in options.items() if name in kernel.arg_names]
                self.gigabytes[kernel.fn.__name__] += gigabytes_of([*arguments, *named])
            return launch(kernel, *arguments, **options)

        JITFunction.run = launched  # type: ignore[method-assign]
        CachingAutotuner.run = counted  # type: ignore[method-assign]


class Meter(training_loops.Stopwatch):
    """Counts between the beginnings of steps."""

    def __init__(self, steps: int, device: torch.device) -> None:
        super().__init__(steps, device)
        self.driver, self.triton = Driver(), TritonBytes()
        self.counts: dict[str, float] = {}
        self.peak_mib = 0.0

    def begin(self, index: int) -> None:
        """Begin to count, or end."""
        super().begin(index)
        if index == WARMUP:
            torch.cuda.reset_peak_memory_stats()
            self.triton.gigabytes.clear()
            self.driver.reset()
        elif index == WARMUP + STEPS:
            self.counts = {n: count / STEPS for n, count in self.driver.counts().items()}
            self.peak_mib = torch.cuda.max_memory_allocated() / 2**20
            self.gigabytes = {n: g / STEPS for n, g in self.triton.gigabytes.items()}

    def report(self) -> dict[str, Any]:
        """What a step asked for."""
        launches = [n for n in self.counts if n.startswith(("K ", "T ", "G ", "memset"))]
        waits = {n: count for n, count in self.counts.items() if n.startswith("SYNC")}
        return {
            "waits": sum(waits.values()),
            "launches": sum(self.counts[n] for n in launches),
            "triton_gb": sum(self.gigabytes.values()),
            "peak_mib": self.peak_mib,
            "attention": attention(self.counts),
            "first_step_s": self.first,
            **graph_counters(),
        }


def attention(counts: dict[str, float]) -> str:
    """Which kernel attends, by its mangled name."""
    found = set()
    for name in counts:
        if "flash_fwd" in name:
            # Flash_fwd_kernel_traits<...>, Is_dropout, Is_causal, ...
            flags = re.search(r"EEE?(Lb[01]E)(Lb[01]E)", name)
            causal = flags is not None and flags[2] == "Lb1E"
            found.add("flash, causal" if causal else "flash, all pairs")
        elif "fmha_cutlassF" in name:
            found.add("memory-efficient")
    return ", ".join(sorted(found)) or "none"


def arithmetic(backbone: BackboneConfig, objective: str, preset: dict[str, Any]) -> dict[str, Any]:
    """What the estimate of a step is made from: FLOPs by shapes, and numbers of weights."""
    v, length = preset["v"], preset["length"]
    tokens = preset["batch"] * length
    made = build_backbone(backbone, v)
    matrices = matrix_weights(made)
    ids, _, _, unique = unique_table(zipf_labels(tokens, v), v)
    candidates = len(ids) if objective.startswith("cwt") else v
    width = made.config.hidden_size
    untied = 0 if objective.startswith("cwt") else v * width
    attention_flops = backbone_flops_per_token(made, length) - 6.0 * matrices
    wanted = unique if objective.startswith("cwt") else v
    return {
        "tokens": tokens,
        "matrix_tflop": (6.0 * tokens * matrices + scoring_flops(tokens, candidates, width)) / 1e12,
        "attention_tflop": FLASH_PASSES * tokens * attention_flops / 1e12,
        "model_tflop": (
            tokens * backbone_flops_per_token(made, length) + scoring_flops(tokens, wanted, width)
        )
        / 1e12,
        "weights": sum(p.numel() for p in made.parameters()) + untied,
    }


def main() -> None:
    """Train a few steps and write what one of them asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="pythia-70m")
    parser.add_argument("--objective", choices=[*OBJECTIVES, THEIRS], default="cwt")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A look at the numbers waits for them as ever, but finds nothing to refuse.
    PretrainingModule.require_finite = lambda self: None  # type: ignore[method-assign]
    training_loops.WARMUP = WARMUP
    steps = WARMUP + STEPS + 1
    preset = {**PRESETS["gpu"], "batch": options.batch, "steps": steps - WARMUP}
    backbone = MODELS[options.model]
    with tempfile.TemporaryDirectory() as folder:
        tokens = steps * options.batch * preset["length"] + 1
        stream = make_stream(Path(folder), tokens, preset["v"])
        loops = training_loops.Loops(backbone, preset, stream, workers=0)
        meter = Meter(loops.steps, loops.device)
        if options.objective == THEIRS:
            loops.hugging_face(not options.eager, meter)
        else:
            loops.ours(OBJECTIVES[options.objective](), not options.eager, meter)
    made = arithmetic(backbone, options.objective, preset)
    here = describe_environment()  # but for the GPU, which it is told of
    versions = {key: here[key] for key in ("commit", "python", "packages")}
    found = {"figures": meter.report(), "arithmetic": made, "environment": versions}
    options.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
