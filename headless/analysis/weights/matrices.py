"""The matrices of a model's weights, decomposed once for all analyses of them, and their nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headless.analysis.record import Measure, Place, Spectrum
from headless.analysis.session import Session
from headless.analysis.states.families import Matrix, block_matrices
from headless.errors import HeadlessError
from headless.geometry import rank_law, ranks_of, singular_spectrum

SEED = 0x5EED


@dataclass(frozen=True)
class Decomposition:
    """The singular values [R] of a matrix beside those of its nulls, descending, in float64."""

    place: Place
    shape: tuple[int, int]  # [out, in]; of a table [rows, width]
    std: float  # of the entries about their mean
    values_R: Tensor
    shuffled_R: Tensor | None = None  # of the same entries in random order
    start_R: Tensor | None = None  # before training
    centred_R: Tensor | None = None  # without the mean row

    @property
    def spectrum(self) -> Spectrum:
        """To draw."""
        nulls = (x_R if x_R is None else x_R.numpy() for x_R in (self.shuffled_R, self.start_R))
        return Spectrum(self.values_R.numpy(), *nulls)


def decompose(
    place: Place, weight: Tensor, start: Tensor | None = None, *, nulls: bool, center: bool = False
) -> Decomposition:
    """About 0.7 seconds a block of 576 dimensions on one core with nulls, some seconds for a table
    of 50,000 rows."""
    return Decomposition(
        place,
        (weight.shape[0], weight.shape[1]),
        float(weight.detach().double().std(correction=0)),
        singular_spectrum(weight).cpu(),
        singular_spectrum(shuffled(weight)).cpu() if nulls else None,
        None if start is None else singular_spectrum(start).cpu(),
        singular_spectrum(weight, center=True).cpu() if center else None,
    )


def rank_numbers(values_R: Tensor) -> dict[str, float]:
    """Of singular values: the law over their rank, and how many of them are in use.

    Knee and effective rank are shares of the full rank.
    """
    law, ranks, full = rank_law(values_R), ranks_of(values_R), len(values_R)
    return {
        "rank_exponent": law.exponent,
        "rank_r_squared": law.r_squared,
        "knee": law.knee / full,
        "effective_rank": ranks.effective / full,
        "stable_rank": ranks.stable,
        "first_share": ranks.first_share,
    }


def paired(*measures: str) -> tuple[Measure, ...]:
    """Measures whose nulls `beside_shuffled` names."""
    return tuple(Measure(measure, null=f"{measure}_shuffled") for measure in measures)


def beside_shuffled(
    numbers: Mapping[str, float], shuffled: Mapping[str, float], *measures: str
) -> dict[str, float]:
    """The numbers of a matrix, and some of those of its shuffled entries with "_shuffled"."""
    return {**numbers, **{f"{measure}_shuffled": shuffled[measure] for measure in measures}}


def block_spectra(lab: Session, *, nulls: bool) -> list[Decomposition]:
    """Of every matrix of every block; with nulls also shuffled, and as it began where known."""

    def made() -> list[Decomposition]:
        both = pairs(lab.subject.weights, lab.subject.initial if nulls else None)
        return [
            decompose(
                Place(m.role, m.block),
                m.weight,
                None if start is None else start.weight,
                nulls=nulls,
            )
            for m, start in both
        ]

    return lab.once(f"block spectra {nulls}", made)


def pairs(backbone: nn.Module, initial: nn.Module | None) -> list[tuple[Matrix, Matrix | None]]:
    """The matrices of the blocks, each with the same one before training."""
    matrices = block_matrices(backbone)
    if initial is None:
        return [(matrix, None) for matrix in matrices]
    starts = block_matrices(initial)
    kinds = [[(m.block, m.role, m.weight.shape) for m in made] for made in (starts, matrices)]
    if kinds[0] != kinds[1]:
        raise HeadlessError(
            "the backbone before training has other matrices than the one after it: give the "
            "first checkpoint of the same run"
        )
    return list(zip(matrices, starts, strict=True))


def shuffled(weight: Tensor, seed: int = SEED) -> Tensor:
    """The same entries in random order: what is left has to do with their values alone."""
    draw = torch.Generator(device=weight.device).manual_seed(seed)
    order = torch.randperm(weight.numel(), generator=draw, device=weight.device)
    return weight.detach().flatten()[order].view(weight.shape)


def middle_block(places: Sequence[Place]) -> int:
    """The block that stands for all where a figure has room for one."""
    return (1 + max(place.block or 0 for place in places)) // 2
