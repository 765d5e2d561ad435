"""Linear pictures of many vectors, and how well two kinds of vectors separate in them.

Shapes: N vectors of width D, K axes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLANE, SPACE = 2, 6  # axes of the picture, and of the space in which kinds are told apart


def unit(x_ND: Tensor) -> Tensor:
    """Rows of length 1 in float64; zero rows stay."""
    x_ND = x_ND.double()
    length_N1 = x_ND.norm(dim=1, keepdim=True)
    return x_ND / length_N1.where(length_N1 > 0, 1.0)


@dataclass(frozen=True)
class Projection:
    """Axes that were fitted to some vectors and can be used for others."""

    mean_D: Tensor  #: what is subtracted before projecting
    axes_KD: Tensor  #: orthonormal; each one's largest entry is positive
    shares_K: Tensor  #: each axis' share of the fitted variance

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Coordinates [N, K], float64."""
        return (x_ND.double() - self.mean_D) @ self.axes_KD.T


def principal_axes(x_ND: Tensor, k: int = SPACE) -> Projection:
    """The first k principal axes of at least one vector, in float64.

    Fewer come back where there are fewer rows or dimensions.
    """
    x_ND = x_ND.double()
    mean_D = x_ND.mean(dim=0)
    centred_ND = x_ND - mean_D
    if len(x_ND) >= x_ND.shape[1]:  # faster than to decompose the rows
        squares, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND)
        squares, axes_KD = squares.clamp(min=0).flip(0), vectors.flip(1).T[:k]
    else:
        _, values, axes_KD = torch.linalg.svd(centred_ND, full_matrices=False)
        squares, axes_KD = values.square(), axes_KD[:k]
    largest_K1 = axes_KD.gather(1, axes_KD.abs().argmax(dim=1, keepdim=True))
    shares_K = squares[:k] / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Projection(mean_D, axes_KD * largest_K1.sign(), shares_K)


def shares_of_independent(x_ND: Tensor, seed: int = 0) -> Tensor:
    """Variance shares [K] after each dimension's values were shuffled by themselves.

    The null model of `principal_axes` (Horn's parallel analysis): the same variances without any
    correlation.
    """
    generator = torch.Generator().manual_seed(seed)
    order_ND = torch.rand(x_ND.shape, generator=generator).argsort(dim=0).to(x_ND.device)
    return principal_axes(x_ND.gather(0, order_ND)).shares_K


def explained(x_NK: Tensor, value_N: Tensor) -> float:
    """R² of a linear regression of a number on coordinates, adjusted for their number.

    0 in expectation where they have nothing to do with each other.
    """
    from sklearn.linear_model import LinearRegression

    rows, k = x_NK.shape
    if rows <= k + 1 or not bool((value_N != value_N[0]).any()):
        return math.nan
    x, value = x_NK.double().cpu().numpy(), value_N.double().cpu().numpy()
    rest = 1 - LinearRegression().fit(x, value).score(x, value)
    return 1 - rest * (rows - 1) / (rows - k - 1)


@dataclass(frozen=True)
class Separation:
    """How far apart two kinds of vectors lie; accuracies are balanced: chance is 0.5."""

    #: accuracy of a logistic regression on the first two principal axes, on what it saw
    plane: float
    #: accuracy on six axes, trained on every second group, tested on the others, and the other way
    #: round, averaged
    held_out: float
    silhouette: float  #: on six axes, −1 … 1 (Rousseeuw 1987)
    null_held_out: np.ndarray  #: `held_out` after kinds were shuffled within each group, some times
    #: `held_out` after the kinds of whole groups were swapped at random: what two clusters a group
    #: give without any direction that the groups share
    null_swapped: np.ndarray


def separation(
    x_ND: Tensor, kind_N: Tensor, group_N: Tensor, *, shuffles: int = 19, seed: int = 0
) -> Separation:
    """Scores for a picture in which two kinds of vectors seem to be apart.

    Axes are fitted to all vectors without their kinds.

    Args:
        kind_N: 0 or 1.
        group_N: e.g. the block that a vector is from; two or more, each with both kinds.
        shuffles: draws of each null model.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, silhouette_score
    from sklearn.model_selection import cross_val_score, permutation_test_score

    kinds, groups = kind_N.cpu().numpy().astype(int), group_N.cpu().numpy()
    names = np.unique(groups)
    if len(names) < 2 or any(len(np.unique(kinds[groups == g])) < 2 for g in names):
        raise ValueError("separation needs two groups or more, each with both kinds")
    projected = principal_axes(x_ND)(x_ND).cpu().numpy()
    x = projected / np.maximum(projected.std(axis=0), 1e-12)  # one strength for all axes
    draw = np.random.default_rng(seed)
    model = LogisticRegression(class_weight="balanced")
    even = np.isin(groups, names[::2])
    halves = [np.flatnonzero(even), np.flatnonzero(~even)]
    how: dict[str, Any] = {"cv": [halves, halves[::-1]], "scoring": "balanced_accuracy"}

    def swapped() -> np.ndarray:
        # None and all swapped are the labels themselves: neither is drawn.
        flips = np.zeros(len(names), dtype=int)
        while flips.min() == flips.max():
            flips = draw.integers(0, 2, len(names))
        return kinds ^ flips[np.searchsorted(names, groups)]

    held_out, null_held_out, _ = permutation_test_score(
        model, x, kinds, groups=groups, n_permutations=shuffles, random_state=seed, **how
    )
    seen = model.fit(x[:, :PLANE], kinds).predict(x[:, :PLANE])
    sample = min(2000, len(kinds))
    silhouette = silhouette_score(projected, kinds, sample_size=sample, random_state=seed)
    return Separation(
        plane=float(balanced_accuracy_score(kinds, seen)),
        held_out=float(held_out),
        silhouette=float(silhouette),
        null_held_out=null_held_out,
        null_swapped=np.array(
            [cross_val_score(model, x, swapped(), **how).mean() for _ in range(shuffles)]
        ),
    )
