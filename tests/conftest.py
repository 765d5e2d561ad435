"""Every test starts from the same random numbers and tells nobody."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: threads would only wait
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


WORDS = [
    "the king", "a crown", "the night", "sweet love", "my lord", "the sea", "his sword",
    "no man", "good Hamlet", "the ghost", "a rose", "fair Ophelia", "old Lear", "the storm",
]  # fmt: skip
VERBS = ["loves", "fears", "sees", "leaves", "calls", "hates", "seeks", "forgets", "finds"]


def make_text(sentences: int, seed: int = 0) -> str:
    """English enough for a tokenizer and a model to learn from: a fixed grammar, seeded."""
    draw = random.Random(seed)
    return " ".join(
        f"{draw.choice(WORDS)} {draw.choice(VERBS)} {draw.choice(WORDS)}{draw.choice('.!?;')}"
        for _ in range(sentences)
    )


@pytest.fixture(scope="session")
def text_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve documents."""
    directory = tmp_path_factory.mktemp("text")
    for i in range(12):
        (directory / f"{i:02d}.txt").write_text(make_text(60, seed=i))
    return directory


@pytest.fixture(scope="session")
def dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of a few thousand tokens."""
    from headless.data.prepare import prepare

    output = tmp_path_factory.mktemp("prepared") / "data"
    prepare([str(text_files)], output, vocab_size=320, validation_fraction=0.1)
    return output


@pytest.fixture(scope="session")
def lossy_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that loses case, blanks, and every word but two."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("lossy")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "the": 2, "king": 3}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]")
    fast.save_pretrained(directory)
    return directory


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the pictures of analyses: drawing takes most of their time."""
    from matplotlib.figure import Figure

    from headless.analysis import report

    draw = report._draw

    def blank(picture: Any, directory: Path, formats: Any) -> str:
        return draw(replace(picture, draw=lambda: Figure((1, 1))), directory, formats)

    monkeypatch.setattr(report, "_draw", blank)


@pytest.fixture
def run_arguments(
    run_arguments_in: Callable[..., list[str]], tmp_path: Path
) -> Callable[..., list[str]]:
    """Arguments of a tiny run below tmp_path: `run_arguments("name", "--option", "value", ...)`."""
    return partial(run_arguments_in, tmp_path / "runs")


@pytest.fixture(scope="session")
def run_arguments_in(dataset: Path) -> Callable[..., list[str]]:
    """Likewise below a directory that is given first."""

    def arguments(
        root: Path, name: str, *more: str, objective: str = "ContrastiveWeightTying"
    ) -> list[str]:
        return [
            *("--run.name", name, "--run.root", str(root), "--run.wandb", "disabled"),
            *("--model.objective", objective),
            *("--model.backbone.model_type", "gpt_neox"),
            *("--model.backbone.hidden_size", "16", "--model.backbone.num_hidden_layers", "2"),
            *("--model.backbone.num_attention_heads", "2"),
            *("--model.backbone.intermediate_size", "32"),
            *("--model.backbone.max_position_embeddings", "32"),
            *("--data.path", str(dataset), "--data.sequence_length", "16"),
            *("--data.batch_size", "8", "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false", "--trainer.max_steps", "12"),
            *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "6"),
            # Its looks would take half of a run's time: who wants them asks for them.
            *("--trainer.log_every_n_steps", "1", "--laboratory.enabled", "false"),
            *more,
        ]

    return arguments
