"""Rates against a clock on which a micro-batch takes a second, and what made others' wrong."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from headless.callbacks.throughput import peak_flops

PREFIX = "throughput/"


class Counter(Callback):
    """Counts tokens, micro-batches and FLOPs up to the end of each step, from the batches."""

    def __init__(self) -> None:
        self.total = torch.zeros(3, dtype=torch.float64)
        self.at: dict[int, torch.Tensor] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        flops = pl_module.training_flops(batch)
        self.total = self.total + torch.tensor([batch["input_ids"].numel(), 1, flops])
        self.at.setdefault(trainer.global_step, self.total)


def change_batches(cli: Any) -> None:
    """Training batches of 4, 3, 2, 1, 4, ... sequences."""
    collate, make_loader = cli.datamodule.collator, cli.datamodule._loader
    calls = iter(range(1000))

    def shrunk(batch: Any) -> dict[str, Any]:
        kept = 4 - next(calls) % 4
        own = batch.own
        shorter = {
            name: getattr(own, name)[:kept] for name in ("indices_R", "tokens_RS", "lengths_R")
        }
        return collate(batch._replace(own=own._replace(**shorter)))

    def loader(split: str, sampler: Any) -> Any:
        cli.datamodule.collator = shrunk if split == "train" else collate
        return make_loader(split, sampler)

    cli.datamodule._loader = loader


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("change", [lambda cli: None, change_batches], ids=["even", "changing"])
def test_rates_of_every_window(train, clock, accumulate, change, recwarn) -> None:
    """Under accumulation, with changing batches, across validation and checkpoints."""
    counter = Counter()
    accumulated = ("--trainer.accumulate_grad_batches", str(accumulate))
    run = train("run", *accumulated, callbacks=[clock, counter], change=change)
    points = run.with_key(PREFIX + "step_ms")
    windows = [(2, 3), (3, 6), (6, 9), (9, 12)]  # two steps of warm-up
    assert [p["progress/step"] for p in points] == [end for _, end in windows]
    for point, (start, end) in zip(points, windows, strict=True):
        tokens, batches, flops = (counter.at[end] - counter.at[start]).tolist()
        assert batches == accumulate * (end - start)
        assert point[PREFIX + "tokens_per_second"] == pytest.approx(tokens / batches)
        assert point[PREFIX + "step_ms"] == pytest.approx(1000 * batches / (end - start))
        assert point[PREFIX + "flops_per_second"] == pytest.approx(flops / batches)
        assert PREFIX + "mfu" not in point  # nobody knows a CPU's peak
    assert counter.at[12][0] < 12 * accumulate * 4 * 16 or change is not change_batches
    assert not [w for w in recwarn if "throughput" in str(w.filename)]


def test_a_step_that_ends_the_warm_up_is_no_window(train, clock) -> None:
    """Under accumulation the next micro-batch belongs to a step that is not yet over."""
    options = ("--throughput.every_n_steps", "2", "--throughput.warmup_steps", "2")
    more = ("--trainer.accumulate_grad_batches", "2")
    run = train("run", *options, *more, callbacks=[clock])
    assert [p["progress/step"] for p in run.with_key(PREFIX + "step_ms")] == [4, 6, 8, 10, 12]


def test_a_resumed_run_warms_up_again(train, clock) -> None:
    options = ("--throughput.every_n_steps", "2", "--throughput.warmup_steps", "3")
    train("run", *options, "--trainer.max_steps", "5", callbacks=[clock])
    run = train("run", *options, "--run.resume", "true", callbacks=[clock])
    points = run.with_key(PREFIX + "step_ms")
    assert [p["progress/step"] for p in points] == [4, 10, 12]
    assert {p[PREFIX + "step_ms"] for p in points} == {1000.0}


def test_share_of_a_given_peak(train, clock) -> None:
    run = train("run", "--throughput.peak_flops", "4e9", callbacks=[clock])
    points = run.with_key(PREFIX + "mfu")
    assert points
    for point in points:
        assert point[PREFIX + "mfu"] == pytest.approx(point[PREFIX + "flops_per_second"] / 4e9)


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16-mixed", 989.4),
        ("NVIDIA H100 80GB HBM3", "bf16-true", 989.4),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756),
        ("NVIDIA H100 NVL", "bf16-mixed", 835.5),
        ("NVIDIA A100-SXM4-80GB", "16-mixed", 312),
        ("NVIDIA A100-PCIE-40GB", "32-true", 19.5),
        ("NVIDIA H20", "bf16-mixed", 148),
        ("NVIDIA A10", "bf16-mixed", 125),
        ("NVIDIA RTX A6000", "bf16-mixed", 154.8),
        ("NVIDIA L4", "bf16-mixed", 121),
        ("NVIDIA L40S", "bf16-mixed", 362),
        ("Tesla V100-SXM2-16GB", "16-mixed", 125),
        ("Tesla T4", "32-true", 8.1),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", 165.2),
        # Other devices, whose names contain those of known ones.
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16-mixed", None),
        ("NVIDIA GeForce RTX 4090 D", "bf16-mixed", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16-mixed", None),
        ("NVIDIA A10G", "bf16-mixed", None),
        ("NVIDIA H800", "bf16-mixed", None),
        ("NVIDIA L40", "bf16-mixed", None),
        ("AMD Instinct MI300X", "bf16-mixed", None),
        ("NVIDIA H100 80GB HBM3", "64-true", None),
        ("NVIDIA H100 80GB HBM3", "transformer-engine", None),
    ],
)
def test_peak_is_known_or_none(name, precision, tera) -> None:
    assert peak_flops(name, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def test_float32_may_run_on_tensor_cores(monkeypatch) -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        assert peak_flops("NVIDIA H200", "32-true") == pytest.approx(494.7e12)
        assert peak_flops("Tesla V100-SXM2-16GB", "32-true") == pytest.approx(15.7e12)
    finally:
        matmul.fp32_precision = before
    assert peak_flops("NVIDIA H200", "32-true") == pytest.approx(67e12)
