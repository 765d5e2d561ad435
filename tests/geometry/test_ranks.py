"""Ranks from singular values are those from the matrix."""

import math

import pytest
import torch

from headless.geometry import (
    effective_rank,
    participation_ratio,
    ranks_of,
    singular_spectrum,
    stable_rank,
)


def test_ranks_are_those_of_the_matrix() -> None:
    x_ND = torch.randn(40, 12) * torch.arange(1, 13)
    ranks = ranks_of(singular_spectrum(x_ND))
    assert ranks.full == 12
    assert ranks.effective == pytest.approx(float(effective_rank(x_ND, center=False)))
    assert ranks.stable == pytest.approx(float(stable_rank(x_ND)))
    assert ranks.participation == pytest.approx(float(participation_ratio(x_ND, center=False)))
    assert ranks.first_share == pytest.approx(1 / ranks.stable)
    assert ranks.missing == pytest.approx(math.log(12 / ranks.effective))


def test_equal_directions_are_counted() -> None:
    ranks = ranks_of(torch.tensor([3.0] * 5 + [0.0] * 3))
    assert ranks.full == 8
    for value in (ranks.effective, ranks.entropy, ranks.stable, ranks.participation):
        assert value == pytest.approx(5)
    assert math.isnan(ranks_of(torch.zeros(4)).effective)
