"""examples/my_analysis.py, a file outside the package: its numbers, and its way into the page."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from headless.analysis.registry import OWN
from headless.analysis.states.capture import Point
from headless.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def from_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user who stands in the directory of the file, and nothing of it left behind."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    yield
    sys.modules.pop("my_analysis", None)
    OWN.clear()


def test_it_finds_the_direction_that_was_planted(from_examples: None) -> None:
    from my_analysis import my_stable_rank

    isotropic_KD = torch.randn(1000, 32)
    planted_KD = isotropic_KD + 20 * torch.randn(1000, 1) * torch.eye(32)[5]
    states = {0: isotropic_KD, 1: planted_KD}
    statistics = {Point("post", i): SimpleNamespace(sample_KD=x) for i, x in states.items()}
    subject = SimpleNamespace(sequences_NT=torch.zeros(1, 1))
    finding = my_stable_rank(SimpleNamespace(statistics=statistics, seed=0, subject=subject))
    numbers = finding.scalars
    # Squared length 32 of isotropic states; with 400 more in one direction that one has 401.
    assert 20 < numbers["my_stable_rank/post/00"] < 32
    assert numbers["my_stable_rank/post/01"] == pytest.approx(432 / 401, rel=0.05)
    assert numbers["my_stable_rank/post/01/gaussian"] > 20
    assert [claim.agrees for claim in finding.claims] == [True]
    assert len(finding.pictures) == 1


def test_it_is_part_of_the_page(
    from_examples: None, run_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert main(["pretrain", *run_arguments("run", "--trainer.max_steps", "2")]) == 0
    run, inside = tmp_path / "runs" / "run", tmp_path / "inside"
    arguments = ["analyze", "--import", "my_analysis", "--model", str(run), "--output", str(inside)]
    assert main([*arguments, "--analyses", "[my_stable_rank]", "--tokens", "1024"]) == 0
    (finding,) = json.loads((inside / "analysis.json").read_text())["findings"]
    assert finding["name"] == "my_stable_rank"
    assert finding["scalars"]["my_stable_rank/post/01"] > 0
    assert (inside / "figures" / "my-stable-rank.svg").is_file()
    assert "In how many directions do states point?" in (inside / "analysis.html").read_text()
