"""Fixed-length blocks of a token stream, and the order in which they are read. Pure numpy.

Block i of length T reads tokens[i·T : i·T + T + lookahead]. With a lookahead of 1 (causal models)
the first T are the input, the last T the targets: every token but the stream's first is a target
exactly once an epoch. Without one (masked models) every token is an input exactly once.
"""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal, NamedTuple

import numpy as np

from headless.data.stream import TokenStream
from headless.errors import HeadlessError

IGNORED = -1  # a block index that stands for a block without any token


class BatchIndex(NamedTuple):
    """Which blocks make a batch, and whose targets are its negatives."""

    epoch: int
    own: list[int]
    others: list[int]  # blocks of other micro-batches and ranks, for the table of unique targets


class Position(NamedTuple):
    """Where training is in its data, whoever reads it: the blocks of an epoch have one order."""

    epoch: int
    sequences: int  # of this epoch, read by all ranks together


class Blocks(NamedTuple):
    """Blocks as they were read, filled up with EOS: R of them, of S = T + lookahead tokens."""

    epoch: int
    indices_R: np.ndarray  # int64
    tokens_RS: np.ndarray  # int64
    lengths_R: np.ndarray  # int64, how many of the first T tokens of each are inputs


class BatchBlocks(NamedTuple):
    """What the dataset gives the collator: a batch, and the blocks beside it."""

    own: Blocks
    others: Blocks


def num_blocks(
    num_tokens: int, sequence_length: int, partial: bool = False, lookahead: int = 1
) -> int:
    """How many blocks a stream has; `partial` counts a last one that is not full."""
    inputs = max(0, num_tokens - lookahead)
    return -(-inputs // sequence_length) if partial else inputs // sequence_length


@dataclass
class BlockDataset:
    """Blocks as a map-style dataset that reads a whole batch at once."""

    stream: TokenStream
    sequence_length: int  #: T
    eos_token_id: int  #: fills up a last block that is not full
    #: keep that last block (validation); without it only full ones (training)
    partial: bool = False
    lookahead: int = 1  #: how many tokens a block reads beyond its T inputs

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise HeadlessError(f"sequence_length must be at least 1, got {self.sequence_length}")
        tokens = len(self.stream)
        self._num_blocks = num_blocks(tokens, self.sequence_length, self.partial, self.lookahead)
        if self._num_blocks == 0:
            raise HeadlessError(
                f"{self.stream.path} holds {tokens} tokens, too few for one sequence of "
                f"{self.sequence_length}: lower data.sequence_length or prepare more text"
            )

    def __len__(self) -> int:
        return self._num_blocks

    def __getitems__(self, batch: BatchIndex) -> BatchBlocks:
        """Read a batch and the blocks whose targets are further negatives."""
        return BatchBlocks(
            self._read(batch.epoch, batch.own), self._read(batch.epoch, batch.others)
        )

    def _read(self, epoch: int, indices: list[int]) -> Blocks:
        length, size = self.sequence_length, self.sequence_length + self.lookahead
        tokens = np.full((len(indices), size), self.eos_token_id, dtype=np.int64)
        lengths = np.zeros(len(indices), dtype=np.int64)
        for row, index in enumerate(indices):
            if index == IGNORED:
                continue
            piece = self.stream.tokens[index * length : index * length + size]
            tokens[row, : len(piece)] = piece
            lengths[row] = len(piece) - self.lookahead
        return Blocks(epoch, np.array(indices, dtype=np.int64), tokens, lengths)


@dataclass
class BlockSampler:
    """Batches of block indices: a function of (seed, epoch, batch), so resuming needs no replay.

    With `shuffle`, epoch e reads the blocks in the order of a permutation drawn from (seed, e).
    Batch k of rank r of W ranks is permutation[(k·W + r)·B : (k·W + r + 1)·B]. Each iteration
    covers what is left of an epoch after `batches_seen`.

    Since the order is known to every process, so are the targets of all others: negatives beyond
    the micro-batch need no communication.
    """

    num_blocks: int
    batch_size: int  #: B, blocks a batch
    _: KW_ONLY
    seed: int = 0
    rank: int = 0
    world_size: int = 1  #: how many processes read
    shuffle: bool = True  #: without it the order is that of the stream (validation)
    #: leave out a last batch that is not full (training). Without it every rank gets equally many
    #: batches, filled up with the index -1.
    drop_last: bool = True
    #: how many batches this rank has consumed since the beginning of training
    batches_seen: Callable[[], int] = lambda: 0
    #: whose blocks a batch names beside its own: "microbatch" none; "accumulated" those of this
    #: rank's other micro-batches of the optimizer step; "global" those of all ranks' micro-batches
    #: of the step
    negatives: Literal["microbatch", "accumulated", "global"] = "microbatch"
    #: micro-batches of an optimizer step; the last step of an epoch may have fewer
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise HeadlessError(f"batch_size must be at least 1, got {self.batch_size}")
        if len(self) == 0:
            raise HeadlessError(
                f"{self.num_blocks} sequences are too few for one batch of {self.batch_size} on "
                f"each of {self.world_size} device(s): lower data.batch_size or prepare more text"
            )

    def __len__(self) -> int:
        """Batches of a whole epoch on one rank."""
        step = self.batch_size * self.world_size
        return self.num_blocks // step if self.drop_last else -(-self.num_blocks // step)

    def position(self, batches_seen: int) -> Position:
        """Where all ranks are when each has read so many batches."""
        epoch, read = divmod(batches_seen, len(self))
        return Position(epoch, read * self.world_size * self.batch_size)

    def batches_at(self, position: Position) -> int:
        """The `batches_seen` with which the next batch begins at a position, which must be a whole
        number of batches of all ranks into its epoch."""
        read, rest = divmod(position.sequences, self.world_size * self.batch_size)
        assert rest == 0
        return position.epoch * len(self) + read

    def order(self, epoch: int) -> np.ndarray:
        """All block indices in the order of an epoch: int64 [num_blocks]."""
        if not self.shuffle:
            return np.arange(self.num_blocks)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_blocks)

    def batch(self, order: np.ndarray, k: int, rank: int | None = None) -> list[int]:
        """Batch k of a rank, by default of this one."""
        rank = self.rank if rank is None else rank
        begin = (k * self.world_size + rank) * self.batch_size
        indices = order[begin : begin + self.batch_size].tolist()
        return indices + [IGNORED] * (self.batch_size - len(indices))

    def others(self, order: np.ndarray, k: int) -> list[int]:
        """The blocks whose targets are negatives of batch k of this rank, beside its own."""
        if self.negatives == "microbatch":
            return []
        first = k - k % self.accumulate
        step = range(first, min(first + self.accumulate, len(self)))
        ranks = range(self.world_size) if self.negatives == "global" else [self.rank]
        return [
            index
            for batch in step
            for rank in ranks
            if (batch, rank) != (k, self.rank)
            for index in self.batch(order, batch, rank)
        ]

    def __iter__(self) -> Iterator[BatchIndex]:
        epoch, first = divmod(self.batches_seen(), len(self))
        order = self.order(epoch)
        for k in range(first, len(self)):
            yield BatchIndex(epoch, self.batch(order, k), self.others(order, k))
