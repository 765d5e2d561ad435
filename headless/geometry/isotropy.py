"""How evenly a set of vectors fills its space: two scores beside the mean cosine."""

import math

import torch
from torch import Tensor

from headless.geometry.spectrum import participation


def isoscore(eigenvalues_D: Tensor) -> float:
    """IsoScore (Rudman et al. 2022) from the eigenvalues of the covariance.

    (participation - 1) / (D - 1): 0 where the vectors vary along one line, 1 where they vary alike
    everywhere. It does not see a common mean. NaN in one dimension and where nothing varies.
    """
    directions = float(participation(eigenvalues_D.double().clamp(min=0.0)))
    if len(eigenvalues_D) < 2 or not directions:
        return math.nan
    return (directions - 1.0) / (len(eigenvalues_D) - 1)


def partition_isotropy(x_ND: Tensor) -> float:
    """I(W) = min Z(c) / max Z(c), Z(c) = sum_i exp(x_i·c) over the eigenvectors ±c of XᵀX.

    Mu and Viswanath 2018, after Arora et al. 2016. 1 for a set without a preferred direction; in
    float64 through logarithms, since exp of a large state overflows.
    """
    x_ND = x_ND.double()
    vectors_DD = torch.linalg.eigh(x_ND.T @ x_ND).eigenvectors
    scores_ND = x_ND @ vectors_DD
    logs = torch.cat([scores_ND.logsumexp(dim=0), (-scores_ND).logsumexp(dim=0)])
    return float((logs.min() - logs.max()).exp())
