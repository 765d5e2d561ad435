"""One pass of a model over sequences: `Statistics` at every point, nothing stored.

In a distributed process group each process runs its share of the batches, and all of them get the
statistics of the whole: sums are the same whatever the split.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headless.analysis.states.accumulators import (
    EDGES,
    EXAMPLE,
    StateStatistics,
    Statistics,
    release_scratch,
)
from headless.analysis.states.capture import (
    INNER,
    Point,
    backbone_of,
    capture,
    inner_points_of,
    points_of,
    width_of,
)
from headless.analysis.states.families import family_of
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
    covariance: bool | Collection[Point] = True,
    by_position: bool | Collection[Point] = True,
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
        model: a backbone or a model with a head. It is put into evaluation mode for the pass.
        batches: token ids [B, T], whole sequences without padding. The first batch has the
            longest sequences. Sequences are numbered as they come, from 0.
        points: which ones; None: all of `points_of`. Those of `inner_points_of` have no reservoir,
            and covariances and sums by position only where they are named: they are wide.
        covariance: at which points to accumulate x xᵀ: D² numbers each.
        by_position: at which points to accumulate sums by position: 2·T·D numbers each.
        histogram: count values, too: most of the time of a pass over a small model.
        sparse: points that are looked at in every fourth batch only, from the first one on.
        reservoir: states kept at each point.
        token_budget: at most so many tokens, in whole sequences, but at least one; the batch that
            exceeds it loses sequences.
        memory: the most bytes that the statistics may take.
        spread: deal the batches to the processes of a group; otherwise this one runs all of them,
            whatever the others do.
        progress: called after each batch with the tokens seen and the budget.

    Returns:
        The statistics by point, in the order of the computation (inner points last), on the CPU.

    Raises:
        HeadlessError: no batch, a sequence longer than the first batch's or than the model takes,
            an id outside the vocabulary, statistics larger than `memory`, states that are not
            finite, or an unknown family or point.
    """
    backbone = backbone_of(model)
    wanted = points_of(model)
    if points is not None:
        wanted = [p for p in [*wanted, *inner_points_of(model)] if p in set(points)]
    shapes = {
        point: _Shape.of(model, point, covariance, by_position, reservoir) for point in wanted
    }
    metrics: dict[Point, StateStatistics] = {}
    numbers = torch.zeros(0, dtype=torch.long)

    now = 0
    rare = set(sparse)

    def observe(point: Point, state_BTD: Tensor) -> None:
        if point not in rare or now % EVERY == 0:
            metrics[point].update(state_BTD, numbers)

    device = next(backbone.parameters()).device
    options = {} if family_of(backbone).post_norm else {"use_cache": False}
    spread = spread and _distributed()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
    was_training = backbone.training
    backbone.eval()
    seen = sequences = longest = 0
    try:
        with capture(model, observe, wanted if points is None else points):
            for index, batch_BT in enumerate(batches):
                if not index:
                    longest = batch_BT.shape[-1] if batch_BT.ndim else 0
                _check(backbone, batch_BT, longest)
                if not index:
                    _check_memory(shapes.values(), longest, memory)
                    for point, shape in shapes.items():
                        metrics[point] = StateStatistics(
                            shape.width,
                            longest,
                            covariance=shape.covariance,
                            by_position=shape.by_position,
                            histogram=histogram,
                            reservoir=shape.reservoir,
                        ).to(device)
                        metrics[point].distributed_available_fn = lambda: spread
                fits = (token_budget - seen) // batch_BT.shape[1]
                if index and not fits:
                    break
                batch_BT = batch_BT[: max(1, fits)]
                numbers = torch.arange(sequences, sequences + len(batch_BT))
                sequences += len(batch_BT)
                seen += batch_BT.numel()
                now = index
                if index % ranks == rank:
                    backbone(input_ids=batch_BT.to(device), **options)
                if progress is not None:
                    progress(seen, token_budget)
    finally:
        backbone.train(was_training)
        release_scratch()
    if not metrics:
        raise HeadlessError("no sequences to measure: give more text or a shorter length")
    return {point: _finite(point, metrics.pop(point)) for point in wanted}


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@dataclass(frozen=True)
class _Shape:
    """What is accumulated at a point."""

    width: int
    covariance: bool
    by_position: bool
    reservoir: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        point: Point,
        covariance: bool | Collection[Point],
        by_position: bool | Collection[Point],
        reservoir: int,
    ) -> "_Shape":
        inner = point.component in INNER

        def holds(choice: bool | Collection[Point]) -> bool:
            return choice and not inner if isinstance(choice, bool) else point in choice

        return cls(
            width_of(model, point), holds(covariance), holds(by_position), 0 if inner else reservoir
        )


def _check(backbone: nn.Module, batch_BT: Tensor, longest: int) -> None:
    if batch_BT.ndim != 2 or not batch_BT.numel():
        raise HeadlessError("a batch must be token ids of the shape [sequences, positions]")
    length = batch_BT.shape[1]
    config = backbone.config
    most = getattr(config, "max_position_embeddings", length)
    if length > most:
        raise HeadlessError(f"sequences of {length} tokens, but the model takes {most} at most")
    if length > longest:
        raise HeadlessError(
            f"a sequence of {length} tokens after a first batch of {longest}: put the longest first"
        )
    largest, types = int(batch_BT.max()), int(config.vocab_size)  # type: ignore[union-attr,arg-type]
    if largest >= types or int(batch_BT.min()) < 0:
        raise HeadlessError(
            f"token id {largest} in a vocabulary of {types}: the text was prepared for another "
            "tokenizer"
        )


def statistics_bytes(
    width: int, length: int, covariance: bool, by_position: bool, kept: int
) -> int:
    """What the statistics of one point take."""
    doubles = 2 * (4 + 1 + 1 + 1 + 1 + 1) * width + 2 * length + 2 * EDGES + width
    doubles += covariance * width * width + by_position * 2 * length * width
    return 8 * doubles + kept * (4 * width + 24) + 4 * width * min(length, EXAMPLE)


def _check_memory(shapes: Collection[_Shape], length: int, memory: int) -> None:
    needed = sum(
        statistics_bytes(s.width, length, s.covariance, s.by_position, s.reservoir) for s in shapes
    )
    if needed > memory:
        widest = max(shape.width for shape in shapes)
        raise HeadlessError(
            f"statistics at {len(shapes)} points of width {widest} take {compact(needed)}B, more "
            f"than {compact(memory)}B: choose fewer points, or covariances for fewer of them"
        )


def _finite(point: Point, metric: StateStatistics) -> Statistics:
    with warnings.catch_warnings():  # a rank whose share is no batch at all
        warnings.filterwarnings("ignore", ".*was called before the ``update`` method.*")
        found = _everywhere(metric)
    total = float(found.powers_G4D.sum())
    if not math.isfinite(total):
        raise HeadlessError(f"the model's states at {point.name} are not finite: it diverged")
    if not float(found.count_G.sum()):
        raise HeadlessError("the model did not run: there were fewer batches than processes")
    return found


def _everywhere(metric: StateStatistics) -> Statistics:
    """Of all ranks, reduced on their devices, then on the CPU."""
    found = metric.compute()
    for name, value in vars(found).items():
        if isinstance(value, Tensor):
            setattr(found, name, value.cpu())
    # A metric wraps its own methods: a cycle, which would hold its reservoir for a while.
    metric.__dict__.clear()
    return found


def sample_tokens(statistics: Statistics, batches: Iterable[Tensor], offset: int = 0) -> Tensor:
    """The token at each state of a reservoir, or `offset` positions later [K].

    Args:
        statistics: of `measure` over the same batches.
        batches: token ids [B, T], in the same order.
        offset: 1 for the token that a decoder predicts there.

    Returns:
        -1 where the sequence has ended.
    """
    rows = [row for batch_BT in batches for row in batch_BT]
    pairs = zip(
        statistics.sample_sequences_K.tolist(),
        (statistics.sample_positions_K + offset).tolist(),
        strict=True,
    )
    return torch.tensor(
        [int(rows[s][p]) if 0 <= p < len(rows[s]) else -1 for s, p in pairs], dtype=torch.long
    )
