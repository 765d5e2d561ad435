"""Every measure against brute force or numpy, and what it must not depend on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headless.geometry import (
    anisotropy,
    effective_rank,
    participation_ratio,
    singular_spectrum,
    stable_rank,
)

SHAPES = [(2, 1), (5, 3), (3, 7), (40, 40), (200, 16)]
MEASURES = [anisotropy, effective_rank, stable_rank, participation_ratio]


def vectors(shape: tuple[int, int], offset: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[0])
    return torch.randn(shape, generator=generator, dtype=torch.float64) + offset


@pytest.mark.parametrize("shape", SHAPES)
def test_anisotropy_is_the_mean_cosine_of_all_pairs(shape) -> None:
    x = vectors(shape)
    cosines = [
        F.cosine_similarity(x[i], x[j], dim=0)
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    torch.testing.assert_close(anisotropy(x), torch.stack(cosines).mean(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("center", [False, True])
def test_spectrum_is_numpys(shape, center) -> None:
    x = vectors(shape).numpy()
    x_used = x - x.mean(axis=0) if center else x
    expected = np.linalg.svd(x_used, compute_uv=False)
    ours = singular_spectrum(torch.from_numpy(x), center=center)
    np.testing.assert_allclose(ours, expected, atol=2e-7 * expected.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_ranks_from_numpys_singular_values(shape) -> None:
    x = vectors(shape)
    centred = np.linalg.svd((x - x.mean(dim=0)).numpy(), compute_uv=False)
    centred = centred[centred > 1e-7 * centred.max()]
    p = centred / centred.sum()
    assert effective_rank(x).item() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T.numpy()).reshape(shape[1], shape[1]))
    assert participation_ratio(x).item() == pytest.approx(
        eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-6
    )
    norm = np.linalg.norm(x.numpy(), "fro") / np.linalg.norm(x.numpy(), 2)
    assert stable_rank(x).item() == pytest.approx(norm**2, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("measure", [effective_rank, stable_rank, participation_ratio])
def test_k_equal_orthogonal_directions_have_rank_k(k, measure) -> None:
    directions = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q[:k] * 3.0
    assert measure(directions, center=False).item() == pytest.approx(k, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(2, 12), st.floats(0.01, 100.0), st.sampled_from(MEASURES))
def test_rotation_and_scale_change_nothing(rows, width, scale, measure) -> None:
    x = vectors((rows, width))
    rotation = torch.linalg.qr(vectors((width, width))).Q
    torch.testing.assert_close(measure(x @ rotation * scale), measure(x), rtol=1e-6, atol=1e-9)


def test_one_direction_and_no_direction() -> None:
    same = torch.ones(5, 4) * torch.arange(1, 6)[:, None]
    assert anisotropy(same).item() == pytest.approx(1.0)
    assert effective_rank(same, center=False).item() == pytest.approx(1.0)
    zeros = torch.zeros(5, 4)
    assert [measure(zeros).item() for measure in MEASURES] == [0.0, 0.0, 0.0, 0.0]


def test_a_row_of_zeros_has_cosine_zero() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert anisotropy(x).item() == pytest.approx(1 / 3)  # one pair of three


def test_one_row_has_no_pairs() -> None:
    assert anisotropy(torch.randn(1, 4)).isnan()
    assert effective_rank(torch.randn(1, 4)).item() == 0.0  # centred: nothing is left
    assert effective_rank(torch.randn(1, 4), center=False).item() == pytest.approx(1.0)


def test_no_row() -> None:
    assert anisotropy(torch.zeros(0, 4)).isnan()
    assert [measure(torch.zeros(0, 4)).item() for measure in MEASURES[1:]] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(9, 4), (3, 7)])
def test_what_is_not_finite_gives_nan(measure, value, shape) -> None:
    """And not an exception, in the middle of a training run."""
    x = vectors(shape)
    x[1, 2] = value
    assert measure(x).isnan()
    assert singular_spectrum(x).isnan().all()


def test_low_precision_is_computed_in_high() -> None:
    x = (torch.randn(300, 8) + 30).bfloat16()
    assert anisotropy(x).dtype == torch.float64
    torch.testing.assert_close(anisotropy(x), anisotropy(x.double()))
