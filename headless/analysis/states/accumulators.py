"""One-pass statistics of the states at a point of a model: sums over batches and ranks.

Position 0 is kept apart from the rest everywhere: its states are of another size in many models,
and anything pooled over both would be about that one token. All sums are float64: fourth powers of
states with a large mean have no digits left in float32.

Shapes: B sequences, T positions, D hidden size, G = 2 groups of positions (0: the first, 1: all
others), K reservoir places, N states, E positions of the example.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

FIRST, REST = 0, 1
OUTLIER = 6.0  # LLM.int8's threshold (Dettmers et al. 2022, §3)
EDGES = 1000  # of the histogram on each side of zero
LARGEST = 1e6  # end of the histogram
FINEST = 1e-3  # where its bins stop narrowing towards zero; above it they are 2 % wide
EXAMPLE = 64  # positions of the corpus's first sequence that are kept as they are
CHUNK = 256  # states whose float64 copies exist at a time, on a CPU: they stay in its cache


def histogram_edges() -> np.ndarray:
    """2·EDGES + 1 edges, symmetric, evenly spaced in asinh: fine at zero, wide in the tails."""
    end = np.arcsinh(LARGEST / FINEST)
    return FINEST * np.sinh(np.linspace(-end, end, 2 * EDGES + 1))


@dataclass(kw_only=True)  # torchmetrics looks into it, which it does not do with a frozen one
class Statistics:
    """What was accumulated at a point; see the functions of `headless.analysis.states.moments`.

    Sums over all states of a group, or over all but first positions' where there is no G. The end
    of a name is its shape.
    """

    count_G: Tensor  # states
    powers_G4D: Tensor  # of x, x², x³, x⁴
    largest_GD: Tensor  # maxima of |x|
    outliers_GD: Tensor  # states with |x| of at least 6
    positive_GD: Tensor  # states with x above 0
    unit_GD: Tensor  # of x/|x|
    unit_squares_GD: Tensor  # of their squares
    norm_G: Tensor  # of |x|
    outer_DD: Tensor | None = None  # of x xᵀ; None where it was not asked for, as two below
    position_count_T: Tensor  # states by position, the first one among them
    position_sum_TD: Tensor | None = None  # of x by position
    position_norm_T: Tensor  # of |x| by position
    position_unit_TD: Tensor | None = None  # of x/|x| by position
    sequences: Tensor  # how many
    sequence_sum_D: Tensor  # over sequences, of the mean of a sequence's states
    sequence_square: Tensor  # over sequences, of |that mean|²: what context explains
    within_square: Tensor  # over sequences, of |sum of a sequence's x/|x||²
    within_pairs: Tensor  # pairs of different states of one sequence, each in both orders
    histogram: Tensor  # counts of all entries between `histogram_edges`
    sample_KD: Tensor  # the reservoir, in order of the corpus
    sample_positions_K: Tensor
    sample_sequences_K: Tensor
    example_ED: Tensor  # the first states of sequence 0, position 0 among them; float32


BY_POSITION = ("position_sum_TD", "position_unit_TD")


class StateStatistics(Metric):
    """Accumulates the states at one point of a model.

    Args:
        hidden_size: D.
        length: the most positions of a sequence.
        covariance: accumulate x xᵀ: D² numbers, 2·D² FLOPs a state.
        by_position: accumulate sums by position: T·D numbers.
        histogram: count the values between `histogram_edges`; else it stays empty.
        reservoir: K, how many states to keep: those whose index in the corpus hashes to the
            smallest numbers, so that the sample does not depend on batches or ranks.
    """

    full_state_update = False
    higher_is_better = None
    if TYPE_CHECKING:  # a state's name is that of its field in `Statistics`

        def __getattr__(self, name: str) -> Tensor: ...

    def __init__(
        self,
        hidden_size: int,
        length: int,
        *,
        covariance: bool = True,
        by_position: bool = True,
        histogram: bool = True,
        reservoir: int = 0,
    ) -> None:
        super().__init__()
        self.counts_values = histogram
        self.covariance = covariance
        self.by_position = by_position
        self.reservoir = reservoir
        left_out = [*(BY_POSITION * (not by_position)), *(["outer_DD"] * (not covariance))]
        sizes = {"G": 2, "4": 4, "D": hidden_size, "T": length, "E": min(length, EXAMPLE)}
        for name in (field.name for field in fields(Statistics)):
            if name in left_out or name.startswith("sample_"):
                continue
            letters = name.rpartition("_")[2]
            shape = [sizes[letter] for letter in letters] if letters.isupper() else []
            shape = [2 * EDGES] if name == "histogram" else shape
            # only one rank sees sequence 0: the others add zeros
            dtype = torch.float32 if name == "example_ED" else torch.float64
            how = "max" if name == "largest_GD" else "sum"
            self.add_state(name, torch.zeros(shape, dtype=dtype), how)
        # hash, sequence and position as whole numbers beside the state itself
        self.add_state("keys", torch.full((reservoir, 3), torch.iinfo(torch.long).max), _rows)
        self.add_state("kept", torch.zeros(reservoir, hidden_size), _rows)
        for name, default in self._defaults.items():
            # torchmetrics keeps the defaults: one number each will do
            if isinstance(default, Tensor) and name != "keys":
                self._defaults[name] = default.new_zeros(()).expand_as(default)

    def update(self, state_BTD: Tensor, sequences_B: Tensor) -> None:
        """Add the states of whole sequences, whose numbers in the corpus are `sequences_B`."""
        length = state_BTD.shape[1]
        self.position_count_T[:length] += float(len(state_BTD))
        self._add(FIRST, state_BTD[:, :1])
        rows = CHUNK if state_BTD.device.type == "cpu" else 64 * CHUNK
        if length > 1:
            for part_BTD in state_BTD[:, 1:].split(max(1, rows // (length - 1))):
                self._add(REST, part_BTD)
        for row in (sequences_B == 0).nonzero().flatten().tolist():
            kept = min(length, len(self.example_ED))
            self.example_ED[:kept] = state_BTD[row, :kept].to(self.example_ED.dtype)
        if self.reservoir and length > 1:
            self._sample(state_BTD[:, 1:], sequences_B.to(state_BTD.device))

    def _add(self, group: int, state_BTD: Tensor) -> None:
        sequences, length, width = state_BTD.shape
        begin, end = group, group + length  # REST begins at position 1
        x_BTD = state_BTD.double()
        x_ND = x_BTD.reshape(-1, width)
        square_ND = x_ND.square()
        norm_N = square_ND.sum(dim=1).sqrt()
        inverse_N = 1 / norm_N.clamp(min=torch.finfo(torch.float64).tiny)
        norm_BT, inverse_BT = norm_N.view(sequences, length), inverse_N.view(sequences, length)
        sum_BD = x_BTD.sum(dim=1)
        unit_BD = (inverse_BT[:, None] @ x_BTD).squeeze(1)
        self.count_G[group] += len(x_ND)
        self.norm_G[group] += norm_N.sum()
        self.position_norm_T[begin:end] += norm_BT.sum(dim=0)
        self.unit_GD[group] += unit_BD.sum(dim=0)
        self.unit_squares_GD[group] += inverse_N.square() @ square_ND
        size_D = torch.maximum(x_ND.amax(dim=0), -x_ND.amin(dim=0))
        self.largest_GD[group] = torch.maximum(self.largest_GD[group], size_D)
        self.outliers_GD[group] += (square_ND >= OUTLIER**2).sum(dim=0)
        self.positive_GD[group] += (x_ND > 0).sum(dim=0)
        if self.by_position:
            self.position_sum_TD[begin:end] += x_BTD.sum(dim=0)
            self.position_unit_TD[begin:end] += (x_BTD * inverse_BT[..., None]).sum(dim=0)
        if group == REST:
            mean_BD = sum_BD / length
            self.sequences += float(sequences)
            self.sequence_sum_D += mean_BD.sum(dim=0)
            self.sequence_square += mean_BD.square().sum()
            self.within_square += unit_BD.square().sum()
            self.within_pairs += float(sequences * length * (length - 1))
            if self.covariance:
                self.outer_DD += x_ND.T @ x_ND
            if self.counts_values:
                self.histogram += _counts(state_BTD)
        third_D, fourth_D = (square_ND * x_ND).sum(dim=0), square_ND.square().sum(dim=0)
        powers = [sum_BD.sum(dim=0), square_ND.sum(dim=0), third_D, fourth_D]
        self.powers_G4D[group] += torch.stack(powers)

    def _sample(self, state_BTD: Tensor, sequences_B: Tensor) -> None:
        """Keep some of the states of positions 1 and on."""
        length = state_BTD.shape[1]
        sequences_N = sequences_B.repeat_interleave(length)
        positions_N = torch.arange(1, 1 + length, device=state_BTD.device).repeat(len(state_BTD))
        order_N = _hash(sequences_N * (1 << 20) + positions_N)
        keys = torch.stack([order_N, sequences_N, positions_N], dim=1)
        best = order_N.topk(min(self.reservoir, len(order_N)), largest=False).indices
        rows = state_BTD.flatten(0, 1)[best].to(self.kept.dtype)
        keys, kept = _smallest(
            torch.cat([self.keys, keys[best]]), torch.cat([self.kept, rows]), self.reservoir
        )
        self.keys.copy_(keys)  # in their places: new ones each time would scatter the memory
        self.kept.copy_(kept)

    def compute(self) -> Statistics:
        """The statistics of all that came, on all ranks."""
        keys, kept = _smallest(self.keys, self.kept, self.reservoir)
        filled = keys[:, 0] < torch.iinfo(torch.long).max
        keys, kept = keys[filled], kept[filled]
        order = torch.from_numpy(np.lexsort((keys[:, 2].cpu(), keys[:, 1].cpu())))
        keys, kept = keys[order], kept[order]
        sums = {
            name: getattr(self, name) for name in self._defaults if name not in ("keys", "kept")
        }
        return Statistics(
            **sums, sample_KD=kept, sample_positions_K=keys[:, 2], sample_sequences_K=keys[:, 1]
        )


def _counts(state_BTD: Tensor) -> Tensor:
    """Entries between `histogram_edges`, which are even in asinh: faster than to search them."""
    x = state_BTD.float() / FINEST
    place = (x.square() + 1).sqrt_().add_(x.abs()).log_()  # four times as fast as torch.asinh
    place.copysign_(x).mul_(float(EDGES / np.arcsinh(LARGEST / FINEST))).add_(EDGES)
    return torch.bincount(place.long().clamp_(0, 2 * EDGES - 1).flatten(), minlength=2 * EDGES)


def _rows(ranks: Tensor) -> Tensor:
    """The reservoirs of all ranks, one below the other [ranks, K, …]."""
    return ranks.flatten(0, 1)


def _smallest(keys: Tensor, kept: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """The rows with the smallest hashes, which any split of the corpus agrees on."""
    if len(keys) <= places:
        return keys, kept
    best = keys[:, 0].topk(places, largest=False).indices
    return keys[best], kept[best]


def _hash(x: Tensor) -> Tensor:
    """Whole numbers to well mixed ones below 2⁶² (the finalizer of MurmurHash3, 31-bit twice)."""

    def mix(value: Tensor) -> Tensor:
        value = (value ^ (value >> 16)) * 0x45D9F3B & 0x7FFFFFFF
        value = (value ^ (value >> 15)) * 0x45D9F3B & 0x7FFFFFFF
        return value ^ (value >> 16)

    low, high = x & 0x7FFFFFFF, x >> 31
    first = mix(low ^ mix(high + 0x1E3779B9))
    second = mix(first ^ mix(low + 0x3C6EF372))
    return first * (1 << 31) + second
