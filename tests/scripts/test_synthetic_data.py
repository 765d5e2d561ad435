"""From a script's sequences to a run: a model comes down to the entropy rate, and no further."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.data.prepare import prepare
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    place = tmp_path_factory.mktemp("bigram")
    sizes = ["--vocab_size", "12", "--successors", "3", "--length", "30", "--tokens", "60000"]
    script = runpy.run_path(str(SCRIPTS / "synthetic_data.py"))
    script["main"](["bigram", str(place / "bigram.jsonl"), *sizes, "--seed", "5"])
    options = {"item_field": "items", "num_items": 12, "validation_fraction": 0.3}
    prepare(str(place / "bigram.jsonl"), place / "data", **options)
    return place / "data", json.loads((place / "bigram.truth.json").read_text())


def test_the_anchors_are_the_truth(made: tuple[Path, dict[str, float]]) -> None:
    """What `prepare` counts is what is known: a bigram source is one for bigrams."""
    data, truth = made
    anchors = json.loads((data / "manifest.json").read_text())["anchors"]["nll"]
    assert anchors["bigram"] == pytest.approx(truth["entropy_rate"], abs=0.02)
    assert anchors["unigram"] == pytest.approx(truth["unigram_entropy"], abs=0.02)
    assert truth["entropy_rate"] < truth["unigram_entropy"] - 0.5


@pytest.mark.parametrize("objective", ["CrossEntropy", "ContrastiveWeightTying"])
def test_a_model_comes_down_to_the_entropy_rate(
    objective: str, made: tuple[Path, dict[str, float]], run_arguments: Callable[..., list[str]]
) -> None:
    data, truth = made
    options = ("--data.path", str(data), "--data.sequence_length", "32", "--data.batch_size", "32")
    options += ("--model.backbone.num_hidden_layers", "1", "--model.optimizer.lr", "0.02")
    options += ("--trainer.max_steps", "100", "--trainer.val_check_interval", "100")
    path = fit(build(run_arguments("run", *options, objective=objective)))
    nats = [p["val/nll"] for p in read_metrics(path / "metrics.jsonl") if "val/nll" in p]
    assert nats[-1] == pytest.approx(truth["entropy_rate"], abs=0.03)
    assert nats[-1] > truth["entropy_rate"] - 0.02  # 18,000 tokens are a sample
