"""A set of vectors seen along its mean direction: a cone, where it is one.

Shapes: N vectors of width D, A axes.
"""

import math

import torch
from torch import Tensor

from headless.geometry.projection import unit


def cone_axes(x_ND: Tensor, axes: int = 3) -> Tensor:
    """Orthonormal axes [A, D]: the mean of the unit rows, then the directions at right angles to
    it in which the unit rows vary most.

    Each is turned so that its largest entry is positive, the first along the mean: the same rows
    give the same picture. At most D axes.
    """
    unit_ND = unit(x_ND)
    if axes > unit_ND.shape[1]:
        raise ValueError(f"{axes} axes in {unit_ND.shape[1]} dimensions")
    mean_D = unit(unit_ND.mean(dim=0, keepdim=True))[0]
    across_ND = unit_ND - torch.outer(unit_ND @ mean_D, mean_D)
    across_ND = across_ND - across_ND.mean(dim=0)
    values_DD = torch.linalg.eigh(across_ND.T @ across_ND).eigenvectors
    # The mean itself has no variance left: it is the last, but rounding may turn others a little.
    others_AD = values_DD.flip(1).T[: axes - 1]
    basis_DA = torch.linalg.qr(torch.cat([mean_D[None], others_AD]).T).Q
    if float(basis_DA[:, 0] @ mean_D) < 0:
        basis_DA[:, 0] *= -1
    for axis in range(1, axes):
        column_D = basis_DA[:, axis]
        if float(column_D[column_D.abs().argmax()]) < 0:
            basis_DA[:, axis] *= -1
    return basis_DA.T.contiguous()


def angles_to(x_ND: Tensor, direction_D: Tensor) -> Tensor:
    """Degrees [N] between each row and a direction; 90 for rows of zeros."""
    cosine_N = unit(x_ND) @ unit(direction_D[None])[0]
    return cosine_N.clamp(-1.0, 1.0).arccos().rad2deg()


def isotropic_angle_density(degrees: Tensor, width: int) -> Tensor:
    """Density, per degree, of the angle between a fixed direction and one drawn uniformly in D
    dimensions: proportional to sin^(D-2), with mean 90 and standard deviation 57.3/√D."""
    sine = degrees.double().deg2rad().sin().clamp(min=torch.finfo(torch.float64).tiny)
    log_constant = math.lgamma(width / 2) - math.lgamma((width - 1) / 2) - math.log(math.pi) / 2
    return (log_constant + (width - 2) * sine.log()).exp() * (math.pi / 180)
