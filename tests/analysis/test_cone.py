"""Anisotropy, cones and uniformity of vectors that were drawn to have them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import claim, draw_all, gather, gaussian, states_lab, stream
from scipy import special
from torch import Tensor

from headless.analysis.record import Cloud, Place
from headless.analysis.shape.anisotropy import alignment_uniformity, next_token, variants
from headless.analysis.shape.anisotropy import anisotropy as by_layer
from headless.analysis.shape.cone import cone
from headless.geometry import anisotropy
from headless.geometry.isotropy import (
    angles_to,
    class_alignment,
    cone_axes,
    isotropic_angle_density,
    isotropic_uniformity,
    uniformity,
)


def rows(count: int = 300, width: int = 24, seed: int = 0) -> Tensor:
    return gaussian(1, count, width, seed)[0]


def brute_cosines(x: Tensor) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True)
    return unit @ unit.T


def test_every_variant_against_all_pairs() -> None:
    x = gaussian(12, 9, 8) + 0.7
    x += 0.5 * gaussian(12, 1, 8, seed=1)  # texts differ
    x[:, 0] *= 50
    found = variants(gather(x))
    rest = x[:, 1:].flatten(0, 1)
    cosines = brute_cosines(rest)
    text = torch.arange(12).repeat_interleave(8)
    same = text[:, None] == text[None]
    other = ~torch.eye(len(rest), dtype=torch.bool)
    assert found[""] == pytest.approx(float(cosines[other].mean()), abs=1e-12)
    assert found["within"] == pytest.approx(float(cosines[same & other].mean()), abs=1e-12)
    assert found["within"] > found[""]
    everything = brute_cosines(x.flatten(0, 1))
    off = ~torch.eye(len(everything), dtype=torch.bool)
    assert found["with_first"] == pytest.approx(float(everything[off].mean()), abs=1e-12)
    first = float(anisotropy(x[:, 0]))
    assert found["first"] == pytest.approx(first, abs=1e-12)
    centred = float(anisotropy(rest - rest.mean(0)))
    assert found["centred"] == pytest.approx(centred, abs=1e-6)  # the reservoir is float32
    singular = torch.linalg.svdvals(rest).square()
    assert found["first_share"] == pytest.approx(float(singular[0] / singular.sum()), abs=1e-9)


def test_a_mean_makes_the_expected_cone(tmp_path: Path) -> None:
    """x = mean + noise: the mean cosine is about |mean|² / (|mean|² + tr Σ)."""
    x = gaussian(width=256) + torch.full((256,), 0.8, dtype=torch.float64)
    finding = by_layer(states_lab(stream([gaussian(width=256), x, x]), {"head": x[0]}))
    assert finding.scalars["anisotropy/post/01"] == pytest.approx(0.64 / 1.64, abs=0.01)
    assert finding.scalars["anisotropy/post/00"] == pytest.approx(0, abs=0.005)
    assert finding.scalars["anisotropy/post/01/centred"] == pytest.approx(0, abs=0.005)
    assert finding.scalars["anisotropy/post/01/without_rogue"] > 0.35
    # entries shuffled: their common mean is left, since it is alike in all dimensions
    assert finding.scalars["anisotropy/post/01/shuffled"] > 0.35
    assert claim(finding, "vanishes")
    assert not claim(finding, "rogue")
    draw_all(finding, tmp_path)


def test_a_rogue_dimension_is_the_cone() -> None:
    x = gaussian(width=64)
    x[..., 9] += 12
    found = variants(gather(x))
    assert found[""] > 0.6
    assert abs(found["without_rogue"]) < 0.02
    assert abs(found["standardised"]) < 0.01
    assert found["shuffled"] < 0.1


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_angles_and_axes(scale: float, seed: int) -> None:
    """Axes are orthonormal, turn with the rows, and do not see their lengths."""
    x = rows(seed=seed) + 0.5
    axes = cone_axes(x)
    torch.testing.assert_close(axes @ axes.T, torch.eye(3, dtype=torch.float64))
    mean = (x / x.norm(dim=1, keepdim=True)).mean(0)
    assert float(axes[0] @ mean / mean.norm()) == pytest.approx(1)
    torch.testing.assert_close(cone_axes(x * scale), axes, rtol=1e-6, atol=1e-8)
    wanted = torch.rad2deg(torch.arccos(x @ mean / x.norm(dim=1) / mean.norm()))
    torch.testing.assert_close(angles_to(x * scale, mean), wanted)
    # Along the others the directions are uncorrelated, and nothing across the mean varies more.
    unit = x / x.norm(dim=1, keepdim=True)
    across = unit - torch.outer(unit @ axes[0], axes[0])
    covariance = torch.cov(across.T, correction=0)
    assert float(axes[1] @ covariance @ axes[2]) == pytest.approx(0, abs=1e-12)
    widest = torch.linalg.eigvalsh(covariance).flip(0)[:2]
    found = torch.stack([axes[i] @ covariance @ axes[i] for i in (1, 2)])
    torch.testing.assert_close(found, widest)


def test_the_isotropic_angle() -> None:
    grid = torch.linspace(0, 180, 20_001, dtype=torch.float64)
    for width in (2, 3, 50, 576):
        density = isotropic_angle_density(grid, width)
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=2e-3)
    spread = torch.trapezoid(density * (grid - 90).square(), grid).sqrt()
    assert float(spread) == pytest.approx(57.2958 / 576**0.5, rel=0.01)


def test_cones(tmp_path: Path) -> None:
    mean = torch.full((64,), 1.2, dtype=torch.float64)
    head = rows(500, 64) + mean
    lab = states_lab({}, {"head": head}, last_states=rows(400, 64, 1), counts_V=torch.arange(500))
    finding = cone(lab)
    # the angle of mean + noise to the mean: arctan(√63 / (1.2 · 8)) on average, nearly
    assert finding.scalars["cone/head/angle"] == pytest.approx(39.6, abs=1.5)
    assert finding.scalars["cone/head/mean_cosine/centred"] == pytest.approx(0, abs=0.01)
    assert claim(finding, "LM head is cone-shaped")
    assert not claim(finding, "last states are cone-shaped")
    assert claim(finding, "cone of the LM head")
    plane = finding.payloads["_plane"][Place("head")]
    assert isinstance(plane, Cloud)
    order = torch.from_numpy(plane.color).argsort()  # the rows are in the order of their counts
    seen = head[(10 ** torch.from_numpy(plane.color)[order]).round().long()]
    axes = torch.from_numpy(finding.arrays["head/axes"])
    torch.testing.assert_close(torch.from_numpy(plane.points)[order], seen @ axes[:2].T)
    assert plane.points[:, 0].min() > 0
    twice = states_lab({}, {"head": head * 2}, last_states=rows(400, 64, 1) * 2)
    assert cone(twice).scalars == pytest.approx(finding.scalars)
    draw_all(finding, tmp_path)


def test_uniformity_and_its_null() -> None:
    x = rows(400, 24)
    unit = x / x.norm(dim=1, keepdim=True)
    pairs = torch.cdist(unit, unit).square()[~torch.eye(400, dtype=torch.bool)]
    assert uniformity(x) == pytest.approx(float((-2 * pairs).exp().mean().log()), abs=1e-10)
    assert isotropic_uniformity(24) == pytest.approx(np.log(special.hyp0f1(12, 4.0)) - 4, abs=1e-12)
    assert uniformity(rows(3000, 24)) == pytest.approx(isotropic_uniformity(24), abs=0.01)
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0)


def test_alignment_of_classes() -> None:
    x, classes = rows(60, 8), torch.arange(60) % 7
    unit = x / x.norm(dim=1, keepdim=True)
    distances = torch.cdist(unit, unit).square()
    same = (classes[:, None] == classes[None]) & ~torch.eye(60, dtype=torch.bool)
    wanted = float(distances[same].mean())
    assert class_alignment(x, classes) == pytest.approx(wanted, abs=1e-10)
    assert np.isnan(class_alignment(x, torch.arange(60)))


def test_alignment_along_the_stream(tmp_path: Path) -> None:
    """States that are their token's row and noise; each text is one token again and again."""
    table = rows(20, 32)
    tokens = torch.randint(0, 20, (30, 1)).expand(30, 12)
    x = 2 * table[tokens] + 0.3 * gaussian(30, 12, 32)
    statistics = stream([gaussian(30, 12, 32), x])
    lab = states_lab(
        statistics,
        {"embedding": gaussian(1, 20, 32, 3)[0], "head": table},
        batches=lambda: [tokens],
    )
    finding = alignment_uniformity(lab)
    key = "alignment_uniformity/post"
    assert finding.scalars[f"{key}/00/same_token"] == pytest.approx(2, abs=0.05)
    assert finding.scalars[f"{key}/01/same_token"] < 0.2
    assert finding.scalars[f"{key}/00/uniformity"] == pytest.approx(
        finding.scalars["alignment_uniformity/isotropic"], abs=0.1
    )
    assert finding.scalars["alignment_uniformity/next_token"] < 0.1
    assert finding.scalars["alignment_uniformity/next_token/random_pairs"] > 1.5
    assert claim(finding, "brings together")
    assert not claim(finding, "spreads states evenly")  # twenty directions
    draw_all(finding, tmp_path)
    lab.subject.has_head = False
    assert claim(alignment_uniformity(lab), "brings together") is None
    assert next_token(x[0], torch.full((12,), -1), table) == {}
