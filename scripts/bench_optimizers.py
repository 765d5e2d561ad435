"""A step of each optimizer on whole models: seconds, with the host's, and memory beyond its states.

    python scripts/bench_optimizers.py [--models NAME ...] [--output FILE.json]

AdamW, Muon as `training/optim/muon.py` steps it (maps of one shape together), and Muon as torch
does (one map after the other), whose weights must be the same after a step. They take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarking import peak_bytes, ratio, release, synchronize, write
from torch import nn
from torch.optim import Optimizer

from headless.models.backbone import BackboneConfig, build_backbone
from headless.training.optim import OptimizerConfig, ScheduleConfig, build_optimizer
from headless.training.optim.muon import Muon

V = 4096
LADDER = BackboneConfig(  # of configs/sweep/ladder-gpu.yaml
    model_type="qwen3",
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=344,
    max_position_embeddings=128,
    extra={"num_key_value_heads": 4, "head_dim": 32},
)
TOGETHER, ALONE = "Muon, maps of a shape together", "Muon, torch's"


class TorchsMuon:
    """The same maps as parameters of torch.optim.Muon, beside AdamW; for maps that are views."""

    def __init__(self, own: Muon) -> None:
        matrices, *rest = own.param_groups
        options = {key: value for key, value in matrices.items() if key != "params"}
        options.pop("initial_lr", None)
        maps = []
        for matrix in matrices["params"]:
            cut = own.cuts[matrix]
            pieces = zip(cut.pieces(matrix.detach()), cut.pieces(matrix.grad), strict=True)
            for weight, gradient in pieces:
                weight.grad = gradient
                maps.append(weight)
        self.muon = torch.optim.Muon(maps, **options)
        self.rest = own.rest
        self.rest.param_groups = rest

    def step(self) -> None:
        """One step of both."""
        self.rest.step()
        self.muon.step()


def prepared(
    name: str, backbone: BackboneConfig, device: torch.device
) -> tuple[nn.Module, Optimizer]:
    """A model with gradients, the same for each optimizer, which has a rate of next to nothing."""
    torch.manual_seed(0)
    module: nn.Module = build_backbone(backbone, V)
    module.to(device)
    for parameter in module.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    config = OptimizerConfig(name, lr=1e-6)
    optimizer, _ = build_optimizer(module, config, ScheduleConfig("constant"), 1000)
    return module, optimizer


def measure(backbone: BackboneConfig, device: torch.device, repeats: int) -> dict[str, Any]:
    """All optimizers on one model."""
    _, adamw = prepared("AdamW", backbone, device)
    ours, muon = prepared("Muon", backbone, device)
    theirs, cut = prepared("Muon", backbone, device)
    assert isinstance(cut, Muon)
    steps: dict[str, Callable[[], Any]] = {
        "AdamW": adamw.step,
        TOGETHER: muon.step,
        ALONE: TorchsMuon(cut).step,
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(2 + repeats):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            if turn >= 2:
                taken[name].append(time.perf_counter() - start)
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    apart = max((a - b).abs().max().item() for a, b in pairs)
    medians = {name: 1e3 * statistics.median(times) for name, times in taken.items()}
    return {
        "step_ms": medians,
        "torch's / together": ratio(medians[ALONE], medians[TOGETHER]),
        "largest_difference_of_a_weight": apart,
        "peak_beyond_mib": {name: peak_bytes(s, device) / 2**20 for name, s in steps.items()},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    gpu = torch.cuda.is_available()
    models = ["ladder", "pythia-14m", *(["pythia-160m", "qwen3-250m"] if gpu else [])]
    parser.add_argument("--models", nargs="+", default=models, help="ladder, or a preset")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/optimizers.json"))
    options = parser.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    results = {}
    for name in options.models:
        backbone = LADDER if name == "ladder" else BackboneConfig(preset=name)
        results[name] = found = measure(backbone, device, options.repeats)
        release(device)
        print(name, {k: round(v, 2) for k, v in found["step_ms"].items()}, flush=True)
        write(options.output, {"threads": torch.get_num_threads(), "models": results})


if __name__ == "__main__":
    main()
