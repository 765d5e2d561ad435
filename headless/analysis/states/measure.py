"""One pass of a model over sequences: `Statistics` at every point, nothing stored.

In a distributed process group each process runs its share of the batches, and all of them get the
statistics of the whole: sums are the same whatever the split.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headless.analysis.states.accumulators import StateStatistics, Statistics
from headless.analysis.states.capture import (
    INNER,
    Point,
    capture,
    evaluating,
    inner_points_of,
    points_of,
    run,
    width_of,
)
from headless.analysis.states.families import backbone_of
from headless.errors import HeadlessError

RESERVOIR = 2048
EVERY = 4  # batches, of those that are looked at at a sparse point


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    points: Collection[Point] | None = None,
    covariance: Collection[Point] | None = None,
    by_position: Collection[Point] | None = None,
    histogram: bool = True,
    sparse: Collection[Point] = (),
    reservoir: int = RESERVOIR,
    spread: bool = True,
    progress: Callable[[int], None] = lambda tokens: None,
) -> dict[Point, Statistics]:
    """Run a model once over batches of token ids and accumulate the states at its points.

    Args:
        model: a backbone or a model with a head.
        batches: token ids [B, T], whole sequences without padding, the longest in the first.
        points: None: all of `points_of`. Those of `inner_points_of` have no reservoir.
        covariance: where to accumulate x xᵀ: D² numbers each; None: all but the inner points,
            which are wide.
        by_position: where to accumulate sums by position: 2·T·D numbers each; None: likewise.
        histogram: count values, too: most of the time of a pass over a small model.
        sparse: points that are looked at in every fourth batch only, from the first one on.
        reservoir: states kept at each point.
        spread: deal the batches to the processes of a group; else this one runs all of them.
        progress: called after each batch with the tokens seen.
    """
    backbone, wanted = backbone_of(model), points_of(model)
    if points is not None:
        wanted = [p for p in [*wanted, *inner_points_of(model)] if p in set(points)]
    spread = spread and dist.is_available() and dist.is_initialized()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
    metrics: dict[Point, StateStatistics] = {}
    index, tokens, numbers_B = 0, 0, torch.zeros(0, dtype=torch.long)

    def empty(point: Point, length: int) -> StateStatistics:
        inner = point.component in INNER
        metric = StateStatistics(
            width_of(backbone, point),
            length,
            covariance=not inner if covariance is None else point in covariance,
            by_position=not inner if by_position is None else point in by_position,
            histogram=histogram,
            reservoir=0 if inner else reservoir,
        )
        metric.distributed_available_fn = lambda: spread
        return metric.to(next(backbone.parameters()).device)

    def observe(point: Point, state_BTD: Tensor) -> None:
        if point not in sparse or index % EVERY == 0:
            metrics[point].update(state_BTD, numbers_B)

    sequences = 0
    with evaluating(backbone), capture(model, observe, wanted if points is None else points):
        for index, batch_BT in enumerate(batches):
            metrics = metrics or {point: empty(point, batch_BT.shape[1]) for point in wanted}
            numbers_B = torch.arange(sequences, sequences + len(batch_BT))
            if index % ranks == rank:
                run(backbone, batch_BT)
            sequences, tokens = sequences + len(batch_BT), tokens + batch_BT.numel()
            progress(tokens)
    return {point: _finite(point, metrics.pop(point)) for point in wanted}


def _finite(point: Point, metric: StateStatistics) -> Statistics:
    """Of all ranks, reduced on their devices, then on the CPU."""
    with warnings.catch_warnings():  # a rank whose share is no batch at all
        warnings.filterwarnings("ignore", ".*was called before the ``update`` method.*")
        sums = metric.compute()
    for name, value in vars(sums).items():
        if isinstance(value, Tensor):
            setattr(sums, name, value.cpu())
    # A metric wraps its own methods: a cycle, which would hold its reservoir for a while.
    metric.__dict__.clear()
    if not math.isfinite(float(sums.powers_G4D.sum())):
        raise HeadlessError(f"the model's states at {point.name} are not finite: it diverged")
    return sums


def sample_tokens(statistics: Statistics, batches: Iterable[Tensor], offset: int = 0) -> Tensor:
    """The token at each state of a reservoir, or `offset` positions later [K].

    -1 where the sequence has ended. The batches are those that were measured.
    """
    rows = [row_T for batch_BT in batches for row_T in batch_BT]
    rows_ST = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1).cpu()
    rows_ST = nn.functional.pad(rows_ST, (0, offset), value=-1)
    return rows_ST[statistics.sample_sequences_K, statistics.sample_positions_K + offset]
