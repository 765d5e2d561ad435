"""How far a set of vectors is from pointing everywhere."""

import torch
from torch import Tensor

ROWS = 8192  # whose float64 copies exist at a time


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
    num_rows = x_ND.shape[0]
    if num_rows < 2:
        return x_ND.new_full((), torch.nan, dtype=torch.float64)
    total_D = x_ND.new_zeros(x_ND.shape[1], dtype=torch.float64)
    alive = total_D.new_zeros(())
    for part_ND in x_ND.split(ROWS):  # a vocabulary in float64 would be large, three times over
        part_ND = part_ND.double()
        norm_N1 = torch.linalg.vector_norm(part_ND, dim=-1, keepdim=True)
        total_D = total_D + (part_ND / norm_N1.where(norm_N1 > 0, 1.0)).sum(dim=0)
        alive = alive + (norm_N1 > 0).sum()
    # Rows of zeros add nothing to either term.
    pairs = total_D.square().sum() - alive
    return pairs / (num_rows * (num_rows - 1))
