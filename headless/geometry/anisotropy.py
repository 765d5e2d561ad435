"""How far a set of vectors is from pointing everywhere."""

import torch
from torch import Tensor


def anisotropy(x_ND: Tensor) -> Tensor:
    """The mean cosine over all pairs of different rows, exactly, without forming the pairs.

    With unit rows u_i the sum over i != j of u_i·u_j is ||sum u||^2 - N: one pass, O(N·D)
    (Ethayarajh 2019 and Godey et al. 2024 estimate it from sampled pairs). 0 for directions drawn
    uniformly, 1 for one direction.

    Args:
        x_ND: any floating type; computed in float64. Rows of zeros have cosine 0 with every row.

    Returns:
        A float64 scalar; NaN for fewer than two rows.
    """
    x_ND = x_ND.double()
    norm_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
    unit_ND = x_ND / norm_N1.where(norm_N1 > 0, 1.0)
    num_rows = x_ND.shape[0]
    if num_rows < 2:
        return x_ND.new_full((), torch.nan)
    # Rows of zeros add nothing to either term.
    pairs = unit_ND.sum(dim=0).square().sum() - (norm_N1 > 0).sum()
    return pairs / (num_rows * (num_rows - 1))
