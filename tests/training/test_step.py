"""The gradient of an optimizer step is that of the mean over all its rows, however it is cut."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from headless.data.blocks import num_blocks
from headless.data.collate import Batch
from headless.data.stream import open_dataset
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig
from headless.objectives import Combined, ContrastiveWeightTying, CrossEntropy
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.optim import OptimizerConfig
from headless.training.pretrain import fit

V, T, B = 40, 8, 3
ROWS = (24, 24, 7, 24, 13)  # that count, of 24 places: five micro-batches an epoch
STILL = 1e-30  # a learning rate that leaves the weights as they are
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "devices": 1,
}
BACKBONE = BackboneConfig(
    model_type="gpt_neox",
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)


def micro_batch(rows: int, index: int) -> Batch:
    draw = torch.Generator().manual_seed(index)
    targets = torch.randint(V, (B, T), generator=draw)
    targets.view(-1)[rows:] = -100
    ids = torch.randint(V, (B, T), generator=draw)
    return {
        **{"input_ids": ids, "targets": targets, "num_tokens": B * T, "num_unique": V},
        "num_targets": rows,
    }


def watched(module: PretrainingModule, logged: dict[str, list[float]]) -> None:
    """Remember what is logged, before Lightning rounds it to float32."""
    log = module.log

    def spy(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        logged.setdefault(name, []).append(float(value))
        log(name, value, *args, **kwargs)

    module.log = spy  # type: ignore[method-assign]


@pytest.mark.parametrize("accumulate", [1, 4, 8])
@pytest.mark.parametrize("objective", [CrossEntropy, ContrastiveWeightTying, Combined])
@pytest.mark.filterwarnings("ignore")
def test_every_row_of_a_step_weighs_the_same(objective: Any, accumulate: int) -> None:
    """Micro-batches with few targets, and a last step with few micro-batches."""
    module = PretrainingModule(
        objective(), BACKBONE, OptimizerConfig(lr=STILL), vocab_size=V, sequence_length=T
    ).double()
    batches = [micro_batch(rows, index) for index, rows in enumerate(ROWS)]
    steps = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    norms, losses = [], []
    for step in steps:
        module.zero_grad()
        outputs = [module.score(b["input_ids"], b["targets"], None) for b in step]
        rows = torch.tensor([b["num_targets"] for b in step], dtype=torch.float64)
        total = sum(output.loss * n for output, n in zip(outputs, rows, strict=True)) / rows.sum()
        total.backward()
        losses.append(total.item())
        gradients = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        norms.append(gradients.norm().item())
    module.zero_grad(set_to_none=True)
    logged: dict[str, list[float]] = {}
    watched(module, logged)
    trainer = Trainer(
        max_epochs=2, accumulate_grad_batches=accumulate, precision="64-true", **QUIET
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert logged["optim/grad_norm"] == pytest.approx(norms * 2, rel=1e-10)
    assert logged["train/loss"] == pytest.approx(losses * 2, rel=1e-10)
    assert logged["train/unique_targets"] == pytest.approx([V] * len(steps) * 2)
    assert not trainer.progress_bar_metrics  # Lightning would read them at every micro-batch
    if objective is Combined:
        parts = ("train/loss_cross_entropy", "train/loss_contrastive")
        sums = [a + b for a, b in zip(*(logged[name] for name in parts), strict=True)]
        assert sums == pytest.approx(losses * 2, rel=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_a_step_in_which_no_row_counts_changes_nothing() -> None:
    module = PretrainingModule(CrossEntropy(), BACKBONE, vocab_size=V, sequence_length=T)
    logged: dict[str, list[float]] = {}
    watched(module, logged)
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, DataLoader([micro_batch(0, 0)], batch_size=None))
    assert logged["optim/grad_norm"] == logged["train/loss"] == [0.0]


@pytest.mark.parametrize("limit", ["3", "0.2"])
def test_negatives_of_a_step_need_whole_steps(
    run_arguments: Callable[..., list[str]], limit: str
) -> None:
    """An epoch that is cut short: the trainer begins a new step, the order of the data goes on."""
    more = ("--trainer.accumulate_grad_batches", "2", "--trainer.limit_train_batches", limit)
    cli = build(run_arguments("run", *more, "--model.objective.negatives", "accumulated"))
    blocks = num_blocks(len(cli.datamodule.dataset.split("train")), 16)
    assert int(0.2 * (blocks // 8)) % 2
    with pytest.raises(HeadlessError, match="a multiple of trainer.accumulate_grad_batches"):
        fit(cli)
    cli = build(run_arguments("other", *more, "--trainer.max_steps", "1"))
    fit(cli)  # those of a micro-batch need none


def test_the_end_of_an_epoch_is_as_its_rows_in_one_batch(
    run_arguments: Callable[..., list[str]], dataset: Any
) -> None:
    """Five micro-batches an epoch in the command: 4 + 1, and 5 of the 8 that were asked for."""
    blocks = num_blocks(len(open_dataset(dataset).split("train")), 16)
    size = blocks // 5

    def norms(name: str, batch: int, accumulate: int, epochs: int) -> list[float]:
        more = (
            *("--data.batch_size", str(batch), "--trainer.precision", "64-true"),
            *("--trainer.accumulate_grad_batches", str(accumulate), "--trainer.max_steps", "-1"),
            *("--trainer.max_epochs", str(epochs), "--trainer.limit_val_batches", "0"),
            *("--model.optimizer.lr", str(STILL), "--laboratory.enabled", "false"),
            *("--model.backbone.num_hidden_layers", "1"),
        )
        cli = build(run_arguments(name, *more, objective="CrossEntropy"))
        logged: dict[str, list[float]] = {}
        watched(cli.model, logged)
        fit(cli)
        return logged["optim/grad_norm"]

    alone, four, all_five = (norms(f"run{n}", n * size, 1, 1) for n in (1, 4, 5))
    assert len(alone) == 5
    assert norms("accumulate4", size, 4, 1) == pytest.approx([four[0], alone[4]], rel=1e-10)
    accumulated = norms("accumulate8", size, 8, 2)
    assert len(accumulated) == 2
    assert accumulated[0] == pytest.approx(all_five[0], rel=1e-10)
