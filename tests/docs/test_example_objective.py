"""examples/my_objective.py, a file outside the package: it learns, and is decoded, as it says."""

import json
import sys
from pathlib import Path

import pytest
import torch

from headless.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def from_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user who stands in the directory of the file, and nothing of it left behind."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    monkeypatch.delitem(sys.modules, "my_objective", raising=False)


def test_its_head_is_what_it_learns(from_examples: None) -> None:
    """Free scores of four contexts come to the distribution that their targets are drawn from."""
    from my_objective import NoiseContrastive

    contexts, vocabulary, rows = 4, 12, 1024
    true = torch.softmax(1.5 * torch.randn(contexts, vocabulary), dim=1)
    count_V = (true.mean(dim=0) * 1e6).long()
    objective = NoiseContrastive(num_sampled=128)
    objective.setup(vocabulary, vocabulary, 0.02)
    objective.set_unigram(count_V)
    scores = torch.zeros(contexts, vocabulary, requires_grad=True)
    eye = torch.eye(vocabulary)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=300)
    for _ in range(300):
        context = torch.randint(contexts, (rows,))
        targets = torch.multinomial(true[context], 1).squeeze(1)
        optimizer.zero_grad()
        objective(scores[context], targets, eye).loss.backward()
        optimizer.step()
        schedule.step()
    head = objective.lm_head(eye, count_V)
    learnt = head.logits(scores.detach()).softmax(dim=1)
    bare = scores.detach().softmax(dim=1)

    def distance(model: torch.Tensor) -> float:
        return float((true * (true / model).log()).sum(dim=1).mean())

    assert distance(learnt) < 0.01
    assert distance(bare) > 0.1  # the bias is needed


def test_rows_that_do_not_count_change_nothing(from_examples: None) -> None:
    from my_objective import NoiseContrastive

    objective = NoiseContrastive(num_sampled=8)
    objective.setup(16, 8, 0.02)
    objective.set_unigram(torch.ones(16))
    hidden, embedding = torch.randn(6, 8), torch.randn(16, 8)
    targets = torch.tensor([1, 2, 3, -100, 4, -100])

    def loss(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return objective(hidden, targets, embedding).loss

    torch.testing.assert_close(
        loss(hidden, targets), loss(hidden[targets >= 0], targets[targets >= 0])
    )
    assert loss(hidden, torch.full((6,), -100)) == 0


def test_a_run_learns_with_it(from_examples: None, run_arguments, tmp_path: Path) -> None:
    own = ["--import", "my_objective", "--trainer.max_steps", "60", "--model.optimizer.lr", "1e-2"]
    arguments = run_arguments("mine", objective="my_objective.NoiseContrastive")
    assert main(["pretrain", *arguments, *own]) == 0
    summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
    assert summary["finished"]
    points = map(
        json.loads, (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    )
    nats = [point["val/nll"] for point in points if "val/nll" in point]
    assert nats[-1] < nats[0] - 0.3
    assert main(["validate", str(tmp_path / "runs" / "mine"), "--import", "my_objective"]) == 0
