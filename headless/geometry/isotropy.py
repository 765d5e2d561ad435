"""How evenly a set of vectors fills its space: two scores beside the mean cosine."""

import torch
from torch import Tensor


def isoscore(eigenvalues_D: Tensor) -> float:
    """IsoScore (Rudman et al. 2022) from the eigenvalues of the covariance.

    (P - 1) / (D - 1) with P = (sum λ)² / sum λ²: 0 where the vectors vary along one line, 1 where
    they vary alike everywhere. It does not see a common mean.

    Returns:
        NaN in one dimension and where nothing varies.
    """
    values = eigenvalues_D.double().clamp(min=0.0)
    squares = float(values.square().sum())
    if len(values) < 2 or squares == 0.0:
        return float("nan")
    return (float(values.sum()) ** 2 / squares - 1.0) / (len(values) - 1)


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
