"""Singular values, through the smaller Gram matrix."""

import torch
from torch import Tensor


def singular_spectrum(x_ND: Tensor, center: bool = False) -> Tensor:
    """The singular values of a matrix, descending, float64 [min(N, D)].

    They are the roots of the eigenvalues of the smaller of XᵀX and XXᵀ in float64: for tall
    matrices several times faster than a singular value decomposition, and exact to about 1e-8 of
    the largest one.

    Args:
        x_ND: any floating type.
        center: subtract the mean row first.

    Returns:
        NaN everywhere for a matrix with values that are not finite.
    """
    x_ND = x_ND.double()
    if center:
        x_ND = x_ND - x_ND.mean(dim=0, keepdim=True)
    gram = x_ND.T @ x_ND if x_ND.shape[0] >= x_ND.shape[1] else x_ND @ x_ND.T
    # The decomposition raises on what is not finite; asking first would wait for the device.
    finite = gram.isfinite().all()
    eigenvalues = torch.linalg.eigvalsh(gram.where(finite, 0.0))
    return eigenvalues.clamp(min=0.0).sqrt().flip(0).where(finite, torch.nan)
