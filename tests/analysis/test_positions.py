"""The path of positions and variance shares, planted."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted import draw_all, states_lab
from torch import Tensor

from headless.analysis.places.positions import position_table, positions, sequence
from headless.analysis.record import Finding
from headless.analysis.states.accumulators import StateStatistics, Statistics
from headless.analysis.states.capture import Point
from headless.analysis.states.reservoirs import position_means
from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig, build_backbone

B, T, D, DEPTH = 60, 40, 24, 4
SMALL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip


def spiral(turns: float = 3.0) -> Tensor:
    t_T = torch.linspace(0, 1, T)
    angle_T = 2 * math.pi * turns * t_T
    path = torch.stack([3 * t_T, angle_T.cos(), angle_T.sin()], dim=1)
    generator = torch.Generator().manual_seed(2)
    return path @ torch.linalg.qr(torch.randn(D, 3, generator=generator)).Q.T


def statistics(position: Tensor, context: float, noise: float = 1.0) -> dict[Point, Statistics]:
    found = {}
    for i in range(DEPTH):
        generator = torch.Generator().manual_seed(i)
        metric = StateStatistics(D, T, covariance=False, reservoir=1000)
        x_BTD = noise * torch.randn(B, T, D, generator=generator) + position
        x_BTD += context * torch.randn(B, 1, D, generator=generator) + 2.0
        metric.update(x_BTD, torch.arange(B))
        found[Point("post", i)] = metric.compute()
    return found


def of_table(path_TD: Tensor) -> Finding:
    """Of a model whose position embeddings are a path."""
    backbone = build_backbone(BackboneConfig(**SMALL | {"model_type": "gpt2"}), 50)
    backbone.wpe = torch.nn.Embedding.from_pretrained(path_TD)
    lab = SimpleNamespace(
        subject=SimpleNamespace(backbone=backbone, sequences_NT=torch.zeros(1, len(path_TD))),
        sequences=torch.zeros(1, len(path_TD)),
        seed=0,
        claims_only=False,
    )
    found = positions(lab)  # type: ignore[arg-type]
    assert found is not None
    return found


def context_of(statistics: dict[Point, Statistics]) -> Finding:
    found = sequence(states_lab(statistics))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("family", "rows"), [("gpt2", 32), ("bert", 32), ("distilbert", 32), ("llama", 0)]
)
def test_tables(family: str, rows: int) -> None:
    backbone = build_backbone(BackboneConfig(**SMALL | {"model_type": family}), 50)
    table = position_table(backbone)
    assert (0 if table is None else len(table)) == rows


def test_a_planted_spiral_is_a_helix(tmp_path: Path) -> None:
    found = of_table(spiral() + 0.02 * torch.randn(T, D))
    assert found.scalars["positions/helix"] == 1
    assert found.scalars["positions/turns"] == pytest.approx(3, abs=0.15)
    assert found.claims[0].agrees
    draw_all(found, tmp_path)


def test_walks_and_noise_are_none() -> None:
    walk = torch.randn(T, D, generator=torch.Generator().manual_seed(1)).cumsum(dim=0)
    for path in (walk, torch.randn(T, D)):
        found = of_table(path)
        assert found.scalars["positions/helix"] == 0
        assert found.claims[0].agrees is False
    no_table = states_lab(statistics(walk, context=0.0))
    no_table.subject.backbone = build_backbone(BackboneConfig(**SMALL), 50)
    found = positions(no_table)
    assert found is not None
    assert found.claims[0].agrees is None
    no_table.claims_only = True
    assert positions(no_table) is None
    with pytest.raises(HeadlessError, match="8 tokens"):
        of_table(walk[:5])


def test_position_means_and_their_noise() -> None:
    means_TD, floor = position_means(statistics(spiral(), context=0.0))
    means, path = (x - x.mean(dim=0) for x in (means_TD, spiral()))  # nearly of one length each
    assert float((means / means.norm() - path / path.norm()).square().sum()) < 0.2
    assert floor < 0.3
    assert position_means(statistics(0 * spiral(), context=0.0))[1] > 0.8
    with pytest.raises(HeadlessError, match="by position"):
        position_means({})


def test_a_tail_is_seen_through_noise() -> None:
    """The early positions lie 1.5 away from a cloud of 0.25, under noise that is larger than it."""

    def one_stream(path_TD: Tensor) -> dict[Point, Statistics]:
        # Blocks share a stream: their noise is the same.
        first = statistics(path_TD, context=0.5)[Point("post", 0)]
        return {Point("post", i): first for i in range(DEPTH)}

    torch.manual_seed(0)
    cloud = torch.nn.functional.normalize(torch.randn(T, D), dim=1) * 0.25
    cloud[: T // 10 + 1, 0] += 1.5
    found = context_of(one_stream(cloud))
    assert found.scalars["sequence/noise_floor"] > 0.5
    assert found.scalars["sequence/tail/with_noise"] < 3
    assert found.scalars["sequence/tail"] > 4
    assert found.claims[0].agrees
    cloud[: T // 10 + 1, 0] -= 1.5
    assert context_of(one_stream(6 * cloud)).claims[0].agrees is False


def test_shares_are_those_that_were_planted(tmp_path: Path) -> None:
    position = spiral()
    wanted = float((position[1:] - position[1:].mean(dim=0)).square().sum(dim=1).mean())
    total = wanted + D * (0.5**2 + 1)
    found = context_of(statistics(position, context=0.5))
    s = found.scalars
    assert s["sequence/position"] == pytest.approx(wanted / total, abs=0.02)
    assert s["sequence/context"] == pytest.approx(D * 0.25 / total, abs=0.03)
    assert s["sequence/six_shares"] > 0.8
    assert found.claims[1].agrees
    draw_all(found, tmp_path)


def test_noise_alone_is_not_judged() -> None:
    noise = context_of(statistics(0 * spiral(), context=0.5))
    assert [claim.agrees for claim in noise.claims] == [None, None]
