"""Pictures of latents on states of which the structure is planted."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import draw_all, states_lab
from sklearn.metrics import silhouette_score
from torch import Tensor

from headless.analysis.places.latents import attention_and_mlp, latents, umap_layout
from headless.analysis.states.accumulators import StateStatistics, Statistics
from headless.analysis.states.capture import Component, Point
from headless.analysis.states.reservoirs import gather, prepared
from headless.errors import HeadlessError

B, T, D, DEPTH = 12, 9, 16, 6


def statistics(
    apart: float = 4.0, depth: float = 4.0, reservoir: int = 40
) -> dict[Any, Statistics]:
    """Attention and MLP `apart` along one axis, the stream moving along another by `depth`."""
    generator = torch.Generator().manual_seed(0)

    def accumulated(shift_D: Tensor) -> Statistics:
        metric = StateStatistics(D, T, covariance=False, reservoir=reservoir)
        x_BTD = torch.randn(B, T, D, generator=generator) + shift_D
        x_BTD[:, 0] *= 1000  # a first position that would own every picture
        metric.update(x_BTD, torch.arange(B))
        return metric.compute()

    axis, other = torch.eye(D)[0], torch.eye(D)[1]
    found = {Point("embed", -1): accumulated(0 * axis)}
    shifts: dict[Component, float] = {"attn": apart, "mlp": -apart}
    for i in range(DEPTH):
        for component, sign in shifts.items():
            found[Point(component, i)] = accumulated(sign * axis)
        found[Point("post", i)] = accumulated(depth * i * other)
    return found | {Point("norm_f", DEPTH): accumulated(5 * other)}


def test_equally_many_of_each_point() -> None:
    x_ND, points, index_N, position_N = gather(statistics(), ("attn", "mlp"), [1, 2], 30)
    assert x_ND.shape == (120, D)
    assert index_N.bincount().tolist() == [30] * 4
    assert {p.block for p in points} == {1, 2}
    assert position_N.min() > 0
    assert x_ND.norm(dim=1).max() < 100  # no first position
    with pytest.raises(HeadlessError, match="4 states of attn at a point are too few"):
        gather(statistics(reservoir=4), ("attn",))
    with pytest.raises(HeadlessError, match="0 states of mid"):
        gather(statistics(), ("mid",))


def test_preparation() -> None:
    x = torch.randn(5, D) * 7 + 1
    torch.testing.assert_close(prepared(x, "unit").norm(dim=1), torch.ones(5).double())
    assert torch.equal(prepared(x, "raw"), x.double())


def test_depth_is_found_and_pictures_are_drawn(tmp_path: Path) -> None:
    found = latents(states_lab(statistics()))
    s = found.scalars
    assert s["latents/stream/raw/depth_r2"] > 0.9
    assert s["latents/stream/raw/share/1"] > 3 * s["latents/stream/raw/null_share/2"]
    assert abs(s["latents/components/raw/depth_r2"]) < 0.1  # nothing planted there
    assert abs(s["latents/stream/unit/position_r2"]) < 0.1
    assert found.claims[0].agrees
    assert not latents(states_lab(statistics(depth=0.0))).claims[0].agrees
    names = [picture.name for picture in found.pictures]
    assert len(set(names)) == len(names) == 2
    draw_all(found, tmp_path)


def test_separation_is_found_where_it_is(tmp_path: Path) -> None:
    found = attention_and_mlp(states_lab(statistics()))
    s = found.scalars
    assert s["separation/raw/held_out"] > 0.95
    assert s["separation/unit/held_out"] > s["separation/unit/held_out/null_largest"]
    assert found.claims[0].agrees
    draw_all(found, tmp_path)


def test_separation_is_not_found_where_it_is_not() -> None:
    found = attention_and_mlp(states_lab(statistics(apart=0.0)))
    assert found.scalars["separation/unit/held_out"] < 0.7
    assert not found.claims[0].agrees
    one = {p: s for p, s in statistics().items() if p.block == 0}
    with pytest.raises(HeadlessError, match="two blocks"):
        attention_and_mlp(states_lab(one))


def test_umap_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HeadlessError, match="pip install umap-learn"):
        umap_layout(torch.randn(20, 4))


def test_umap_keeps_components_apart(tmp_path: Path) -> None:
    pytest.importorskip("umap", reason="pip install umap-learn")
    lab = states_lab(statistics(reservoir=12))
    lab.umap = True
    found = latents(lab)
    (shown,) = found.payloads["components_umap"].values()
    assert silhouette_score(shown.points, shown.kinds) > 0.3
    names = [picture.name for picture in found.pictures]
    assert {"latents-components-umap", "latents-stream-umap"} <= set(names)
    again = latents(lab)
    np.testing.assert_array_equal(found.arrays["components_umap"], again.arrays["components_umap"])
    draw_all(found, tmp_path)
