"""Is a path through space a helix? A score that smooth random paths do not reach.

The principal components of any smooth path are close to cosines: a random walk gives variances
∝ 1/k² at k/2 turns, and so a curve that looks like a spiral, whose phase is nearly linear. What it
does not give is a *circle*: two components of nearly equal variance that turn at the same
frequency, a quarter of a turn apart. The score measures just that, after the straight line through
the path was taken out: over a few turns a sine is correlated with it, and the components of a
helix would mix its axis and its circle.

Shapes: T positions along the path, D dimensions, K components, F frequencies.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from headless.geometry.projection import principal_axes
from headless.geometry.spectrum import participation

COMPONENTS = 6
LEAST_TURNS = 1.5  # less is an arc or a loop, which random paths make, too
SLOWEST, MOST_TURNS = 0.25, 64.0
FINE = 20  # frequencies that are tried for each turn over the whole path
SHARE = 0.1  # of the variance about the axis that a circle must have to be one
RATIO = 1.5  # of the two variances of a circle, at most
SAME = 0.2  # difference of two frequencies that count as one, in turns; a walk's are 0.5 apart
ROTATION = 0.75
LINEAR = 0.9  # phase R² of the circle, |ρ| of the axis
LONGEST_WALK = 256  # positions of a random walk; longer ones look the same


@dataclass(frozen=True)
class Helix:
    """A path's axis, and the two of its components that come closest to a circle."""

    axis_share: float  #: of the path's variance that lies on the straight line through it
    axis_rho: float  #: |Spearman correlation| of the coordinate along that line with position
    pair_share: float = 0.0  #: of the variance about the line, of the two components
    ratio: float = math.nan  #: the larger of their variances over the smaller
    #: of a sinusoid fitted to each, in turns over the path
    frequencies: tuple[float, float] = (math.nan, math.nan)
    #: the largest share of the pair's variance that one steady rotation has; 1 for a circle, about
    #: 0.5 for two unrelated sinusoids
    rotation: float = 0.0
    turns: float = math.nan  #: of that rotation
    phase_r2: float = math.nan  #: R² of the pair's unwrapped angle over position
    score: float = 0.0  #: rotation / ratio: 1 for a perfect circle

    @property
    def has_circle(self) -> bool:
        """Two components form a circle, and go round it more than once."""
        return (
            self.pair_share >= SHARE
            and self.ratio <= RATIO
            and abs(self.frequencies[0] - self.frequencies[1]) <= SAME
            and self.rotation >= ROTATION
            and self.phase_r2 >= LINEAR
            and self.turns >= LEAST_TURNS
        )

    @property
    def is_helix(self) -> bool:
        """A circle, and an axis along which the path goes steadily."""
        return self.has_circle and self.axis_rho >= LINEAR


def helix(path_TD: Tensor) -> Helix:
    """Look for a helix in a path of at least 8 positions and 3 dimensions."""
    from scipy.stats import spearmanr

    if len(path_TD) < 8 or path_TD.shape[1] < 3:
        raise ValueError("a path needs at least 8 positions and 3 dimensions")
    centred_TD = path_TD.double() - path_TD.double().mean(dim=0)
    t_T = torch.linspace(-1, 1, len(centred_TD), dtype=torch.float64, device=centred_TD.device)
    slope_D = t_T @ centred_TD / t_T.square().sum()
    about_TD = centred_TD - torch.outer(t_T, slope_D)
    total = float(centred_TD.square().sum())
    axis_share = 1 - float(about_TD.square().sum()) / total if total else 0.0
    along_T = (centred_TD @ slope_D).cpu()
    axis_rho = abs(float(spearmanr(along_T, range(len(t_T))).statistic)) if total else 0.0
    axes = principal_axes(about_TD, COMPONENTS)
    scores_TK, shares = axes(about_TD).cpu(), axes.shares_K.tolist()
    variance_K = scores_TK.square().mean(dim=0)
    k = int((variance_K > 1e-12 * total / len(about_TD)).sum())
    if k < 2:
        return Helix(axis_share, axis_rho)
    pairs = list(combinations(range(k), 2))
    measured = []
    for pair in [p for p in pairs if sum(shares[i] for i in p) >= SHARE] or pairs:
        rotation, turns = _rotation(scores_TK[:, pair])
        ratio = float(variance_K[pair[0]] / variance_K[pair[1]])
        measured.append((rotation / ratio, rotation, turns, ratio, pair))
    score, rotation, turns, ratio, (a, b) = max(measured)
    return Helix(
        axis_share=axis_share,
        axis_rho=axis_rho,
        pair_share=shares[a] + shares[b],
        ratio=ratio,
        frequencies=(_frequency(scores_TK[:, a]), _frequency(scores_TK[:, b])),
        rotation=rotation,
        turns=turns,
        phase_r2=_phase_r2(scores_TK[:, a], scores_TK[:, b]),
        score=score,
    )


def random_walks(path_TD: Tensor, walks: int, seed: int = 0) -> list[Tensor]:
    """Random walks to compare a path with: the null model of `helix`.

    Gaussian steps in as many dimensions as the path's own steps effectively have (participation
    ratio, at least 3), since walks in few dimensions are less regular.
    """
    difference_TD = path_TD.double().diff(dim=0)
    squares = torch.linalg.svdvals(difference_TD).square()
    width = max(3, min(round(float(participation(squares))), LONGEST_WALK))
    generator = torch.Generator().manual_seed(seed)
    shape = (walks, min(len(path_TD), LONGEST_WALK), width)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(dim=1))


def _turns(length: int) -> np.ndarray:
    """The frequencies that are tried [F], in turns over the path."""
    return np.arange(SLOWEST, min(MOST_TURNS, length / 4) + 1 / FINE, 1 / FINE)


def _rotation(xy_T2: Tensor) -> tuple[float, float]:
    """The largest share of the variance that one rotation, either way, has, and its turns."""
    turns_F = _turns(len(xy_T2))
    power = torch.fft.fft(torch.complex(*xy_T2.T), n=FINE * len(xy_T2)).abs().square()
    at_F = torch.from_numpy((FINE * turns_F).round().astype(int))
    size_F = torch.maximum(power[at_F], power[-at_F]) / (len(xy_T2) * xy_T2.square().sum())
    return float(size_F.max()), float(turns_F[int(size_F.argmax())])


def _frequency(score_T: Tensor) -> float:
    """Of the sinusoid that fits best by least squares, with any phase and offset."""
    from scipy.signal import lombscargle

    length = len(score_T)
    turns_F = _turns(length)
    angular_F, t_T = 2 * np.pi * turns_F / length, np.arange(length)
    fitted_F = lombscargle(t_T, score_T.numpy(), angular_F, floating_mean=True)
    return float(turns_F[fitted_F.argmax()])


def _phase_r2(a_T: Tensor, b_T: Tensor) -> float:
    angle_T = np.unwrap(torch.atan2(b_T / b_T.std(), a_T / a_T.std()).numpy())[1:]
    return float(np.corrcoef(angle_T, np.arange(len(angle_T)))[0, 1] ** 2)
