"""What needs a GPU and neither the command line nor a prepared dataset."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from headless.data.collate import Batch, unique_table
from headless.models.backbone import BackboneConfig
from headless.objectives import (
    Combined,
    ContrastiveWeightTying,
    CrossEntropy,
    Objective,
    cross_entropy_loss,
)
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig, ScheduleConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
V, B, T = 3000, 4, 512
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "CWT": ContrastiveWeightTying,
    "CWT logq": lambda: ContrastiveWeightTying(duplicates="logq", num_sampled=64),
    "cross-entropy": CrossEntropy,
    "cross-entropy in chunks": lambda: CrossEntropy(chunk_size=600),
    "both": Combined,
}
FAMILIES = ("gpt2", "gpt_neox", "llama")


def batch(seed: int) -> Batch:
    """Tokens of which each is its successor's double, but for some; M varies with the seed."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, (900, 2000, 3000)[seed % 3], (B, 1))
    for _ in range(T):
        noise = generator.integers(0, V, (B, 1))
        following = np.where(generator.random((B, 1)) < 0.1, noise, 2 * tokens[:, -1:] % V)
        tokens = np.concatenate([tokens, following], axis=1)
    inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    table = unique_table(targets.reshape(-1), V)
    ids, inverse, counts = map(torch.from_numpy, table[:3])
    return {
        "input_ids": torch.from_numpy(inputs),
        "targets": torch.from_numpy(targets),
        "unique_ids": ids,
        "unique_inverse": inverse,
        "unique_counts": counts,
        "num_tokens": B * T,
        "num_targets": B * T,
        "num_unique": table[3],
    }


class Watch(Callback):
    """Losses, and an error at each wait for the GPU in a few steps."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        is_steady = 6 <= index < 11  # compilation is done, and no look at the loss is due
        torch.cuda.set_sync_debug_mode("error" if is_steady else "default")

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        self.losses.append(outputs["loss"].detach())


def train(objective: Objective, family: str, compiled: bool, steps: int) -> list[float]:
    backbone = BackboneConfig(
        model_type=family,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=T,
    )
    module = PretrainingModule(
        objective,
        backbone,
        OptimizerConfig(lr=3e-3),
        ScheduleConfig(warmup_steps=5),
        vocab_size=V,
        sequence_length=T,
        compile=compiled,
    )
    watch = Watch()
    trainer = Trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        gradient_clip_val=1.0,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, DataLoader([batch(i) for i in range(steps)], None, pin_memory=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [float(loss) for loss in watch.losses]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_step_waits_for_the_gpu(family: str, compiled: bool) -> None:
    torch._dynamo.reset()
    assert len(train(ContrastiveWeightTying(), family, compiled, 12)) == 12


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_waits_for_the_gpu(name: str) -> None:
    assert len(train(OBJECTIVES[name](), "gpt_neox", False, 12)) == 12


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_learns_when_compiled(name: str) -> None:
    torch._dynamo.reset()
    losses = train(OBJECTIVES[name](), "gpt_neox", True, 120)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.5


@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_of_bf16_are_exact_to_its_mantissa(compiled: bool) -> None:
    """The weight's gradient is summed in float32: eight chunks err as much as one product."""
    torch._dynamo.reset()
    hidden = torch.randn(2048, 128, device="cuda").bfloat16().requires_grad_()
    table = (torch.randn(V, 128, device="cuda") / 8).bfloat16().requires_grad_()
    targets = torch.randint(0, V, (2048,), device="cuda")
    targets[::7] = -100
    loss = torch.compile(cross_entropy_loss) if compiled else cross_entropy_loss
    found = loss(hidden, targets, table, chunk_size=256, z_loss=1e-2, label_smoothing=0.1)
    gradients = torch.autograd.grad(found, (hidden, table))
    exact = [x.detach().double().requires_grad_() for x in (hidden, table)]
    options = {"z_loss": 1e-2, "label_smoothing": 0.1, "chunk_size": None}
    wanted = cross_entropy_loss(exact[0], targets, exact[1], **options)
    torch.testing.assert_close(found.double(), wanted, rtol=5e-3, atol=0)
    for a, b in zip(gradients, torch.autograd.grad(wanted, exact), strict=True):
        assert (a.double() - b).norm() < 1e-2 * b.norm()
