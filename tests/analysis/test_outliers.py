"""Planted outlier dimensions are found."""

from pathlib import Path

import torch
from planted import claim, draw_all, gather, gaussian, states_lab, stream
from torch import Tensor

from headless.analysis.shape.outliers import int8_dims, massive_dims, outliers

PLANTED = [3, 17, 20, 25, 30]
V, D = 31, 32


def planted(blocks: int = 4) -> list[Tensor]:
    states = []
    for seed in range(blocks):
        x = gaussian(seed=seed)
        x[..., PLANTED] *= 9
        x[..., PLANTED[:2]] += torch.tensor([60.0, -60.0], dtype=torch.float64)
        states.append(x)
    return states


def test_planted_dimensions(tmp_path: Path) -> None:
    finding = outliers(states_lab(stream(planted())))
    for block in range(4):
        key = f"outliers/post/{block:02d}"
        assert finding.scalars[f"{key}/scale_dims"] == len(PLANTED)
        assert finding.scalars[f"{key}/cosine_share_top2"] > 0.98
        assert finding.scalars[f"{key}/leading_dim"] in PLANTED[:2]
        assert finding.scalars[f"{key}/leading_sign_constancy"] > 0.99
        assert finding.scalars[f"{key}/massive_dims"] == 0
    assert finding.arrays["persistent"].tolist() == PLANTED
    assert claim(finding, "the same ones")
    assert claim(finding, "one to three dimensions")
    assert claim(finding, "keeps its sign")
    draw_all(finding, tmp_path)


def test_a_gaussian_has_none() -> None:
    finding = outliers(states_lab(stream([gaussian(seed=seed) for seed in range(4)])))
    assert finding.scalars["outliers/post/00/scale_dims"] == 0
    assert not claim(finding, "the same ones")
    assert claim(finding, "one to three dimensions") is None  # there is no mean cosine to carry
    assert not claim(finding, "massive")


def test_massive_activations_are_absolute_and_relative() -> None:
    x = gaussian()
    x[0, 0, 5] = 5000.0  # position 0 of one text
    assert massive_dims(gather(x)).nonzero().flatten().tolist() == [5]
    assert not massive_dims(gather(x * 0.001)).any()  # 5: not above 100
    assert not massive_dims(gather(x * torch.where(x > 4000, 1, 100))).any()  # median too large


def test_int8_dims_need_enough_layers_and_positions() -> None:
    plain, loud = gaussian(), gaussian()
    loud[..., 4] = 7.0
    loud[0, :, 6] = 7.0  # one text of sixty: too few positions
    assert int8_dims(stream([plain] * 3 + [loud], "norm1")).nonzero().flatten().tolist() == [4]  # type: ignore[union-attr]
    assert not int8_dims(stream([plain] * 4 + [loud], "norm1")).any()  # type: ignore[union-attr]
    assert int8_dims(stream([loud])) is None
