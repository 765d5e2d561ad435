"""Principal axes against scikit-learn, and separation scores on planted clouds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from headless.geometry import (
    explained,
    principal_axes,
    separation,
    shares_of_independent,
    unit,
)


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(8, 24), width=st.integers(7, 24), seed=st.integers(0, 99))
def test_axes_are_those_of_scikit_learn(rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator).double()
    x = x * torch.linspace(3, 0.5, width) + 5
    axes, reference = principal_axes(x, 3), PCA(3, svd_solver="full").fit(x.numpy())
    np.testing.assert_allclose(axes.shares_K, reference.explained_variance_ratio_, atol=1e-9)
    cosines = (axes.axes_KD.numpy() * reference.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-6)
    np.testing.assert_allclose(
        axes(x), reference.transform(x.numpy()) * np.sign(cosines), atol=1e-6
    )


def test_centring() -> None:
    x = torch.randn(50, 6).double() + torch.tensor([10.0, 0, 0, 0, 0, 0])
    assert principal_axes(x, 2)(x).mean(dim=0).abs().max() < 1e-9
    assert principal_axes(x[:1], 3).axes_KD.shape == (1, 6)


def test_shuffled_dimensions_have_no_direction() -> None:
    x = torch.randn(400, 1).double() @ torch.ones(1, 20).double() + 0.3 * torch.randn(400, 20)
    assert float(principal_axes(x).shares_K[0]) > 0.8
    assert float(shares_of_independent(x)[0]) < 0.12


def test_explained() -> None:
    z = torch.randn(300, 4).double()
    assert explained(z, z @ torch.tensor([1.0, 2, 0, 0]).double()) == pytest.approx(1)
    assert abs(explained(z, torch.randn(300))) < 0.06
    assert np.isnan(explained(z, torch.ones(300)))


def test_unit() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]).double())


def clouds(shared: float, own: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two kinds in six groups: `shared` distance along one direction, `own` along each group's."""
    generator = torch.Generator().manual_seed(3)
    kind = torch.arange(2).repeat(6 * 30)
    group = torch.arange(6).repeat_interleave(60)
    x = torch.randn(360, 12, generator=generator)
    directions = torch.randn(6, 12, generator=generator)
    directions[:, 0] = 0
    sign = (2 * kind - 1)[:, None]
    x = x + own * sign * torch.nn.functional.normalize(directions, dim=1)[group]
    x[:, 0] += shared * sign[:, 0]
    return x, kind, group


def test_a_shared_direction_separates_held_out_groups() -> None:
    found = separation(*clouds(shared=3.0, own=0.0), shuffles=5)
    assert found.plane > 0.95
    assert found.held_out > 0.95
    assert found.held_out > found.null_held_out.max()
    assert found.held_out > found.null_swapped.max()
    assert found.silhouette > 0.3
    assert abs(found.null_held_out.mean() - 0.5) < 0.06


def test_nothing_separates_nothing() -> None:
    found = separation(*clouds(shared=0.0, own=0.0), shuffles=1)
    assert found.held_out < 0.6
    assert abs(found.silhouette) < 0.05


def test_directions_of_single_groups_do_not_count() -> None:
    """Each group's kinds are far apart, but not the same way: held-out groups notice."""
    found = separation(*clouds(shared=0.0, own=6.0), shuffles=1)
    assert found.held_out < 0.85
    assert separation(*clouds(shared=6.0, own=0.0), shuffles=1).held_out > 0.99


def test_separation_needs_groups() -> None:
    x, kind, group = clouds(1.0, 0.0)
    with pytest.raises(ValueError, match="two groups"):
        separation(x, kind, torch.zeros_like(group))
    with pytest.raises(ValueError, match="both kinds"):
        separation(x, group % 2, group)
