"""States from the reservoirs of `Statistics`, and mean states by position.

All positions but the first are in them. Shapes: N states, T positions, D hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from headless.analysis.record import Place
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Component, Point, middle_blocks
from headless.errors import HeadlessError
from headless.geometry import unit

LEAST_STATES = 8  # states at a point that scores need


def drawn(values: Tensor, most: int, seed: int) -> Tensor:
    """At most so many of the values, flat; of more they are drawn at random, with repetition."""
    values = values.flatten()
    if len(values) <= most:
        return values
    draw = torch.Generator(device=values.device).manual_seed(seed)
    return values[torch.randint(len(values), (most,), generator=draw, device=values.device)]


def by_place(statistics: Mapping[Point, Statistics], *components: str) -> dict[Place, Statistics]:
    """Those of some components, or of all, by their places."""
    return {
        Place.parse(point.name): s
        for point, s in statistics.items()
        if not components or point.component in components
    }


def prepared(x_ND: Tensor, how: Literal["raw", "unit"]) -> Tensor:
    """States as they are, or with length 1; float64."""
    return unit(x_ND) if how == "unit" else x_ND.double()


def gather(
    statistics: Mapping[Point, Statistics],
    components: Sequence[Component],
    blocks: Sequence[int] | None = None,
    most: int = 400,
) -> tuple[Tensor, list[Point], Tensor, Tensor]:
    """Equally many states of each point, `most` at most; `embed` and `norm_f` whatever the blocks.

    Returns:
        States [N, D] on the CPU, their points, the index of each state's point [N], and their
        positions [N].
    """
    points = [
        point
        for point in statistics
        if point.component in components
        and (blocks is None or point.component in ("embed", "norm_f") or point.block in blocks)
    ]
    number = min((len(statistics[point].sample_KD) for point in points), default=0)
    if number < LEAST_STATES:
        raise HeadlessError(
            f"{number} states of {', '.join(components)} at a point are too few for pictures: "
            "give more text"
        )
    number = min(most, number)
    states, positions = [], []
    for point in points:
        s = statistics[point]
        chosen = torch.linspace(0, len(s.sample_KD) - 1, number).round().long()
        states.append(s.sample_KD.cpu()[chosen].double())
        positions.append(s.sample_positions_K.cpu()[chosen])
    index_N = torch.arange(len(points)).repeat_interleave(number)
    return torch.cat(states), points, index_N, torch.cat(positions)


def position_means(statistics: Mapping[Point, Statistics]) -> tuple[Tensor, float]:
    """Mean direction by position over sequences and the middle blocks [T, D].

    With it the noise floor: the share of the means' variance over positions that comes from
    finitely many sequences, of the middle block with the largest one.
    """
    measured = [p.block for p in statistics if p.component == "post"]
    means, floors = [], []
    for s in (statistics[Point("post", i)] for i in middle_blocks(measured)):
        if s.position_unit_TD is None:
            continue
        count_T = s.position_count_T[s.position_count_T > 0]
        mean_TD = s.position_unit_TD[s.position_count_T > 0] / count_T[:, None]
        between = float((mean_TD[1:] - mean_TD[1:].mean(dim=0)).square().sum(dim=1).mean())
        within = 1 - float(mean_TD[1:].square().sum(dim=1).mean())  # of unit vectors
        noise = max(0.0, within) / float(count_T.mean())  # of a mean over so many sequences
        means.append(mean_TD.cpu())
        floors.append(min(1.0, noise / max(between, 1e-300)))
    if not means:
        raise HeadlessError("positions need states after blocks, accumulated by position")
    return torch.stack(means).mean(dim=0), max(floors)
