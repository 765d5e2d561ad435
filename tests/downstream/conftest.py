"""Trained runs, once for all tests of what comes after training."""

from collections.abc import Callable
from pathlib import Path

import pytest

RUNS = {
    "headless": ("ContrastiveWeightTying", "gpt_neox"),
    "vanilla": ("CrossEntropy", "gpt_neox"),
    "llama": ("ContrastiveWeightTying", "llama"),
}


@pytest.fixture(scope="session")
def masked_dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset whose tokenizer has a mask token."""
    from headless.data.prepare import prepare

    output = tmp_path_factory.mktemp("masked") / "data"
    prepare([str(text_files)], output, vocab_size=320, validation_fraction=0.1, mask_token="[MASK]")
    return output


@pytest.fixture(scope="session")
def train(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`train("name", objective, family, *options)` gives a run directory of 16 steps."""
    root = tmp_path_factory.mktemp("trained")

    def pretrained(name: str, objective: str, family: str, *more: str) -> Path:
        from headless.training.assembly import build
        from headless.training.pretrain import fit

        sizes = ("hidden_size", "32"), ("num_hidden_layers", "2"), ("num_attention_heads", "2")
        arguments = [
            *("--run.name", name, "--run.root", str(root), "--run.wandb", "disabled"),
            *("--model.objective", objective, "--model.backbone.model_type", family),
            *(part for key, value in sizes for part in (f"--model.backbone.{key}", value)),
            *("--model.backbone.intermediate_size", "64"),
            *("--model.backbone.max_position_embeddings", "32"),
            *("--model.optimizer.lr", "1e-2", "--model.schedule.warmup_steps", "2"),
            *("--data.path", str(dataset), "--data.sequence_length", "16"),
            *("--data.batch_size", "8", "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false", "--trainer.max_steps", "16"),
            *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "8"),
            *("--trainer.log_every_n_steps", "4", "--seed_everything", "3"),
            *more,
        ]
        return fit(build(arguments))

    return pretrained


@pytest.fixture(scope="session")
def runs(train: Callable[..., Path]) -> dict[str, Path]:
    """A run of each of RUNS."""
    return {name: train(name, *parts) for name, parts in RUNS.items()}


@pytest.fixture(scope="session")
def masked_run(train: Callable[..., Path], masked_dataset: Path) -> Path:
    """A headless BERT."""
    options = ("--data.path", str(masked_dataset), "--data.task", "masked")
    return train("bert", "ContrastiveWeightTying", "bert", *options)
