"""Mean states by position, and how much of them is noise of finitely many sequences.

Shapes: T positions, D hidden size.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from headless.analysis import moments
from headless.analysis.accumulators import Statistics
from headless.analysis.by_depth import middle_blocks
from headless.analysis.capture import Point
from headless.errors import HeadlessError


def position_means(
    statistics: Mapping[Point, Statistics], *, directions: bool
) -> tuple[Tensor, float]:
    """Mean state at each position over sequences and the middle blocks [T, D], float64.

    Args:
        statistics: of `post` points, accumulated by position.
        directions: of unit vectors; else of states as they are.

    Returns:
        The means, and the noise floor: the share of their variance over positions that comes from
        finitely many sequences (of the middle block with the largest one).

    Raises:
        HeadlessError: no such sums.
    """
    measured = [p.block for p in statistics if p.component == "post"]
    chosen = [statistics[Point("post", i)] for i in middle_blocks(measured)]
    if not chosen or any(s.position_unit_TD is None for s in chosen):
        raise HeadlessError("positions need states after blocks, accumulated by position")
    seen = chosen[0].position_count_T > 0
    means = []
    for s in chosen:
        sums_TD = s.position_unit_TD if directions else s.position_sum_TD
        assert sums_TD is not None
        means.append((sums_TD[seen] / s.position_count_T[seen, None]).double().cpu())
    floor = max(
        _noise_floor(s, mean_TD, directions) for s, mean_TD in zip(chosen, means, strict=True)
    )
    return torch.stack(means).mean(dim=0), floor


def _noise_floor(s: Statistics, mean_TD: Tensor, directions: bool) -> float:
    """Variance of a mean over C sequences, over the variance of the means between positions."""
    count_T = s.position_count_T[s.position_count_T > 0]
    between = float((mean_TD[1:] - mean_TD[1:].mean(dim=0)).square().sum(dim=1).mean())
    if directions:
        within = 1 - float(mean_TD[1:].square().sum(dim=1).mean())  # of unit vectors
    else:
        within = float(moments.variance(s).sum()) - between
    return min(1.0, max(0.0, within) / float(count_T.mean()) / max(between, 1e-300))
