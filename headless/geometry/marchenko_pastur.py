"""What the singular values of pure noise would be (Marchenko and Pastur 1967), and what differs.

For a matrix of independent entries with mean 0 and standard deviation s, N values in its longer
and M in its shorter dimension. Everything is in singular values σ, not in eigenvalues λ = σ².
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headless.geometry.spectrum import exp_entropy

# 99 % point of Tracy and Widom's law for real matrices: how far the largest eigenvalue of noise
# strays beyond the edge, in units of its scale.
TRACY_WIDOM_99 = 2.0234
GRID = 4096


@dataclass(frozen=True)
class MarchenkoPastur:
    """The law for one shape."""

    rows: int  #: N, the longer dimension
    columns: int  #: M, the shorter one
    std: float  #: of the entries

    @classmethod
    def of(cls, shape: tuple[int, ...] | torch.Size, std: float) -> "MarchenkoPastur":
        """For a matrix's shape in either order."""
        return cls(max(shape), min(shape), std)

    def edges(self, slack: bool = False) -> tuple[float, float]:
        """The smallest and the largest singular value of a large matrix: s(√N ± √M).

        `slack` widens both by what a matrix of this size strays (Tracy and Widom, 99 %); the lower
        one of square matrices is 0 in any case.
        """
        n, m = math.sqrt(self.rows), math.sqrt(self.columns)
        low, high = (n - m) ** 2, (n + m) ** 2
        if slack:
            high += TRACY_WIDOM_99 * (n + m) * (1 / n + 1 / m) ** (1 / 3)
            if self.rows > self.columns:
                low -= TRACY_WIDOM_99 * (n - m) * (1 / m - 1 / n) ** (1 / 3)
        return self.std * math.sqrt(max(low, 0.0)), self.std * math.sqrt(high)

    def density(self, values_K: Tensor) -> Tensor:
        """Of singular values [K]; 0 outside the edges; a quarter circle for square matrices."""
        low, high = self.edges()
        values_K = values_K.double()
        inside_K = (values_K > low) & (values_K < high)
        squares_K = values_K.square()
        root_K = ((high**2 - squares_K) * (squares_K - low**2)).sqrt()
        density_K = root_K / (math.pi * self.std**2 * self.columns * values_K)
        return density_K.where(inside_K, 0.0)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Singular values between the edges, and the share of noise's that lies below each."""
        low, high = self.edges()
        # Points are dense at both edges, where the density has the slope of a root.
        angle = torch.linspace(0, math.pi, GRID, dtype=torch.float64)
        values_G = low + (high - low) * (1 - angle.cos()) / 2
        density_G = self.density(values_G)
        if low == 0:  # a quarter circle, highest at 0
            density_G[0] = high / (math.pi * self.std**2 * self.columns)
        steps = values_G.diff() * (density_G[1:] + density_G[:-1]) / 2
        below_G = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        return values_G.numpy(), (below_G / below_G[-1]).numpy()

    def expected(self) -> Tensor:
        """The M singular values of a typical noise matrix, descending: the law's quantiles."""
        values_G, below_G = self.table()
        shares_M = (np.arange(self.columns)[::-1] + 0.5) / self.columns
        return torch.from_numpy(np.interp(shares_M, below_G, values_G))


def effective_rank_of_noise(rows: int, columns: int) -> float:
    """Effective rank, centred, of a typical matrix of independent Gaussian rows.

    What a finite sample gives where every direction is as strong as any other: a measured rank
    is compared with it, not with D. NaN for fewer than two rows, which have no direction.
    """
    if rows < 2:
        return math.nan
    # The mean takes one row.
    return float(exp_entropy(MarchenkoPastur.of((rows - 1, columns), 1.0).expected()))


def bulk_std(values_R: Tensor, rows: int, columns: int) -> float:
    """The entries' standard deviation that gives the median of all min(N, M) singular values
    (Gavish and Donoho): a few large ones raise the entries' variance, but leave the median.
    """
    values_G, below_G = MarchenkoPastur.of((rows, columns), 1.0).table()
    return float(values_R.double().cpu().quantile(0.5) / np.interp(0.5, below_G, values_G))


@dataclass(frozen=True)
class NoiseComparison:
    """A spectrum beside the law."""

    above: int  #: singular values above the upper edge and its slack: structure
    below: int  #: below the lower edge and its slack; 0 for square matrices, which have none
    distance: float  #: Kolmogorov and Smirnov's, between the singular values and the law


def compare_with_noise(values_R: Tensor, law: MarchenkoPastur) -> NoiseComparison:
    """How far a matrix's singular values are from those of noise.

    Args:
        values_R: all of them, descending: as many as `law.columns`.
        law: of the matrix's shape; the entries' standard deviation as it is, as it was at the
            beginning of training, or as the bulk has it (`bulk_std`).
    """
    values_R = values_R.double().cpu()
    low, high = law.edges(slack=True)
    values_G, below_G = law.table()
    below_R = np.interp(values_R.flip(0).numpy(), values_G, below_G)
    share_R = np.arange(len(values_R)) / len(values_R)
    steps_R = np.maximum(share_R + 1 / len(values_R) - below_R, below_R - share_R)
    return NoiseComparison(
        above=int((values_R > high).sum()),
        below=int((values_R < low).sum()),
        distance=float(steps_R.max()),
    )
