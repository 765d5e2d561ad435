"""States from the reservoirs of `Statistics`: which ones, and made ready for a projection.

All positions but the first are in them. Shapes: N states, D hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from headless.analysis.accumulators import Statistics
from headless.analysis.capture import Component, Point
from headless.errors import HeadlessError
from headless.geometry import unit

Prepare = Literal["raw", "unit", "norm"]
FEW = 8  # states at a point that scores need


def prepared(x_ND: Tensor, how: Prepare) -> Tensor:
    """States as they are, with length 1, or through a layer norm without parameters; float64."""
    x_ND = x_ND.double()
    if how == "unit":
        return unit(x_ND)
    if how == "norm":
        return torch.nn.functional.layer_norm(x_ND, x_ND.shape[1:])
    return x_ND


def gather(
    statistics: Mapping[Point, Statistics],
    components: Sequence[Component],
    blocks: Sequence[int] | None = None,
    most: int = 400,
) -> tuple[Tensor, list[Point], Tensor, Tensor]:
    """Equally many states of each point from the reservoirs.

    Args:
        statistics: with reservoirs.
        components: which.
        blocks: which; None: all. `embed` and `norm_f` are always taken if they are asked for.
        most: states of a point.

    Returns:
        States [N, D] on the CPU, their points, the index of each state's point [N], and their
        positions [N].

    Raises:
        HeadlessError: no such point, or reservoirs too small.
    """
    points = [
        point
        for point in statistics
        if point.component in components
        and (blocks is None or point.component in ("embed", "norm_f") or point.block in blocks)
    ]
    if not points:
        raise HeadlessError(f"no states of {', '.join(components)} were measured")
    number = min(most, *(len(statistics[point].sample_KD) for point in points))
    if number < FEW:
        raise HeadlessError(
            f"{number} states a point are too few for pictures: measure with a larger reservoir"
        )
    states, positions = [], []
    for point in points:
        s = statistics[point]
        chosen = torch.linspace(0, len(s.sample_KD) - 1, number).round().long()
        states.append(s.sample_KD.cpu()[chosen].double())
        positions.append(s.sample_positions_K.cpu()[chosen])
    index_N = torch.arange(len(points)).repeat_interleave(number)
    return torch.cat(states), points, index_N, torch.cat(positions)
