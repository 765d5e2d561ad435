"""What the analyses of weights share: every matrix's spectrum, its nulls, numbers by role."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.states.families import Matrix, block_matrices
from headless.errors import HeadlessError
from headless.geometry import singular_spectrum

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
SEED = 0x5EED


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one matrix beside those of its nulls.

    Args:
        block: from 0.
        role: of `ROLES`.
        shape: [out, in].
        std: of the entries about their mean.
        values_R: descending, float64.
        shuffled_R: of a matrix with the same entries in random order; empty where no null was
            asked for.
        start_R: of the same matrix before training, where that is known.
        start_std: of the entries before training: measured, or the config's; None: not known.
    """

    block: int
    role: str
    shape: tuple[int, int]
    std: float
    values_R: Tensor
    shuffled_R: Tensor
    start_R: Tensor | None
    start_std: float | None


def shuffled(weight: Tensor, seed: int = SEED) -> Tensor:
    """The same entries in random order: what is left has to do with their values alone."""
    draw = torch.Generator(device=weight.device).manual_seed(seed)
    order = torch.randperm(weight.numel(), generator=draw, device=weight.device)
    return weight.detach().flatten()[order].view(weight.shape)


def null_spectrum(weight: Tensor) -> Tensor:
    """The singular values of a matrix with its entries in random order."""
    return singular_spectrum(shuffled(weight)).cpu()


def spread(weight: Tensor) -> float:
    """The standard deviation of a matrix's entries about their mean, in float64."""
    return float(weight.detach().double().std(correction=0))


def spectra_of(
    backbone: nn.Module, initial: nn.Module | None = None, *, nulls: bool = True
) -> list[Spectrum]:
    """The spectrum of every matrix of every block.

    Args:
        backbone: of a family that the laboratory knows.
        initial: the same backbone before training.
        nulls: decompose the shuffled matrices as well.

    Raises:
        HeadlessError: another family, or `initial` has other matrices.
    """
    starts: Sequence[Matrix | None]
    matrices = block_matrices(backbone)
    starts = matching(matrices, initial) if initial is not None else [None] * len(matrices)
    found = []
    for matrix, start in zip(matrices, starts, strict=True):
        weight = matrix.weight
        found.append(
            Spectrum(
                block=matrix.block,
                role=matrix.role,
                shape=(weight.shape[0], weight.shape[1]),
                std=spread(weight),
                values_R=singular_spectrum(weight).cpu(),
                shuffled_R=null_spectrum(weight) if nulls else torch.empty(0),
                start_R=None if start is None else singular_spectrum(start.weight).cpu(),
                start_std=start_std(backbone, matrix.role)
                if start is None
                else spread(start.weight),
            )
        )
    return found


def matching(matrices: Sequence[Matrix], initial: nn.Module) -> list[Matrix]:
    """The matrices of the untrained backbone, one for each of the trained one's.

    Raises:
        HeadlessError: they are others.
    """
    starts = block_matrices(initial)
    if [(m.block, m.role, m.weight.shape) for m in starts] != [
        (m.block, m.role, m.weight.shape) for m in matrices
    ]:
        raise HeadlessError(
            "the backbone before training has other matrices than the one after it: give the "
            "first checkpoint of the same run"
        )
    return starts


def start_std(backbone: nn.Module, role: str) -> float | None:
    """The standard deviation with which the config begins a matrix; None where it has none.

    GPT-2 divides that of what writes into the residual stream by √(2 · blocks).
    """
    config: Any = backbone.config
    std = getattr(config, "initializer_range", None)
    if not std:
        return None
    if config.model_type == "gpt2" and role in ("o", "down"):
        return float(std) / math.sqrt(2 * config.num_hidden_layers)
    return float(std)


def roles_in(items: Sequence[Any]) -> list[str]:
    """The roles that occur, in the order of `ROLES`."""
    there = {item.role for item in items}
    return [role for role in ROLES if role in there]


def by_role(items: Sequence[Any], number: Callable[[Any], float]) -> dict[str, np.ndarray]:
    """A number of each matrix, by role, over the blocks [L]."""
    return {
        role: np.array([number(item) for item in items if item.role == role], dtype=float)
        for role in roles_in(items)
    }


def mean(values: np.ndarray) -> float:
    """Of the finite values; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def role_means(name: str, tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Scalars "name/role/measure": the mean over the blocks."""
    return {
        f"{name}/{role}/{measure}": mean(values)
        for measure, table in tables.items()
        for role, values in table.items()
    }


def role_arrays(tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays "role/measure": over the blocks."""
    return {
        f"{role}/{measure}": values
        for measure, table in tables.items()
        for role, values in table.items()
    }


def joined(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """All roles' values in one array."""
    return np.concatenate(list(table.values()))


def share(condition: np.ndarray) -> float:
    """How many are true, as a share; NaN of nothing."""
    return float(np.mean(condition)) if len(condition) else math.nan


def in_words(table: Mapping[str, np.ndarray], digits: int = 2) -> str:
    """The mean of each role as "q 0.86, k 0.51"."""
    return ", ".join(f"{role} {mean(values):.{digits}f}" for role, values in table.items())
