"""One pass of a model over sequences: `Statistics` at every point, nothing stored.

In a distributed process group each process runs its share of the batches, and all of them get the
statistics of the whole: sums are the same whatever the split.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

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
from headless.pages.numbers import compact

RESERVOIR = 2048
EVERY = 4  # batches, of those that are looked at at a sparse point
MEMORY = 8 * 2**30  # bytes; more must be asked for
Progress = Callable[[int, int], None]


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
    token_budget: int = 1 << 19,
    memory: int = MEMORY,
    spread: bool = True,
    progress: Progress | None = None,
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
        token_budget: at most so many tokens, in whole sequences, but at least one.
        memory: the most bytes that the statistics may take.
        spread: deal the batches to the processes of a group; else this one runs all of them.
        progress: called after each batch with the tokens seen and the budget.
    """
    backbone, wanted = backbone_of(model), points_of(model)
    if points is not None:
        wanted = [p for p in [*wanted, *inner_points_of(model)] if p in set(points)]
    spread = spread and dist.is_available() and dist.is_initialized()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
    metrics: dict[Point, StateStatistics] = {}
    index, numbers = 0, torch.zeros(0, dtype=torch.long)

    def empty(point: Point, length: int) -> StateStatistics:
        inner = point.component in INNER
        return StateStatistics(
            width_of(backbone, point),
            length,
            covariance=not inner if covariance is None else point in covariance,
            by_position=not inner if by_position is None else point in by_position,
            histogram=histogram,
            reservoir=0 if inner else reservoir,
        )

    def observe(point: Point, state_BTD: Tensor) -> None:
        if point not in sparse or index % EVERY == 0:
            metrics[point].update(state_BTD, numbers)

    with evaluating(backbone), capture(model, observe, wanted if points is None else points):
        checked = _checked(backbone, batches, token_budget, progress)
        for index, (first, batch_BT) in enumerate(checked):
            if not index:
                of_length = partial(empty, length=batch_BT.shape[1])
                metrics.update(_allocated(of_length, wanted, backbone, memory, spread))
            numbers = torch.arange(first, first + len(batch_BT))
            if index % ranks == rank:
                run(backbone, batch_BT)
    if not metrics:
        raise HeadlessError("no sequences to measure: give more text or a shorter length")
    return {point: _finite(point, metrics.pop(point)) for point in wanted}


def _checked(
    backbone: nn.Module, batches: Iterable[Tensor], budget: int, progress: Progress | None
) -> Iterator[tuple[int, Tensor]]:
    """As far as the budget goes, the first in any case, with the number of its first sequence."""
    seen = longest = sequences = 0
    types = int(backbone.config.vocab_size)  # type: ignore[union-attr,arg-type]
    for batch_BT in batches:
        if batch_BT.ndim != 2 or not batch_BT.numel():
            raise HeadlessError("a batch must be token ids of the shape [sequences, positions]")
        length = batch_BT.shape[1]
        longest = longest or length
        most = getattr(backbone.config, "max_position_embeddings", length)
        if length > most:
            raise HeadlessError(f"sequences of {length} tokens, but the model takes {most} at most")
        if length > longest:
            raise HeadlessError(
                f"a sequence of {length} tokens after a first batch of {longest}: put the longest "
                "first"
            )
        largest = int(batch_BT.max())
        if largest >= types or int(batch_BT.min()) < 0:
            raise HeadlessError(
                f"token id {largest} in a vocabulary of {types}: the text was prepared for another "
                "tokenizer"
            )
        fits = (budget - seen) // length
        if seen and not fits:
            return
        batch_BT = batch_BT[: max(1, fits)]
        yield sequences, batch_BT
        sequences += len(batch_BT)
        seen += batch_BT.numel()
        if progress is not None:
            progress(seen, budget)


def _allocated(
    empty: Callable[[Point], StateStatistics],
    points: Collection[Point],
    backbone: nn.Module,
    memory: int,
    spread: bool,
) -> dict[Point, StateStatistics]:
    with torch.device("meta"):
        needed = sum(empty(point).bytes for point in points)
    if needed > memory:
        raise HeadlessError(
            f"statistics at {len(points)} points take {compact(needed)}B, more than "
            f"{compact(memory)}B: choose fewer points, or covariances for fewer of them"
        )
    metrics = {point: empty(point).to(next(backbone.parameters()).device) for point in points}
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: spread
    return metrics


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
    if not float(sums.count_G.sum()):
        raise HeadlessError("the model did not run: there were fewer batches than processes")
    return sums


def sample_tokens(statistics: Statistics, batches: Iterable[Tensor], offset: int = 0) -> Tensor:
    """The token at each state of a reservoir, or `offset` positions later [K].

    -1 where the sequence has ended. The batches are those that were measured.
    """
    rows = [row_T for batch_BT in batches for row_T in batch_BT]
    rows_ST = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1).cpu()
    rows_ST = nn.functional.pad(rows_ST, (0, offset), value=-1)
    return rows_ST[statistics.sample_sequences_K, statistics.sample_positions_K + offset]
