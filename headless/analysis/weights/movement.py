"""How far training moved each matrix, and whether the movement has directions."""

import torch
from torch import nn

from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import Finding, Measure, Place, mean, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.weights.matrices import (
    Decomposition,
    beside_shuffled,
    decompose,
    paired,
    pairs,
    rank_numbers,
)

RANKS = ("effective_rank", "stable_rank", "first_share", "rank_exponent")  # of the difference
MEASURES = (Measure("distance"), Measure("cosine"), *paired("effective_rank"))


@analysis(
    "weights",
    name="weight_movement",
    title="Movement of the weights since the beginning",
    about=(
        "The difference between a matrix now and before training. Its norm relative to the "
        "beginning's says how far the matrix went (0: not at all; 1: as far as it was from zero), "
        "the cosine between the two whether it still points the same way. The singular values of "
        "the difference say whether training moved a few directions or all of them; the null is "
        "the same difference with its entries shuffled, which moves all of them."
    ),
    cheap=True,
    figures=(
        by_depth(
            "weight-movement",
            "Distance from the beginning relative to its norm, and the difference's effective rank "
            "(dashed: entries shuffled), by block.",
            Panel("relative distance from the beginning", ("distance",), limits=(0, None)),
            Panel(
                "effective rank of the difference, share of the full rank",
                ("effective_rank",),
                limits=(0, 1.02),
            ),
        ),
        by_rank(
            "weight-movement-spectra",
            "Singular values of the difference, one line a block (light: early, dark: late); "
            "dashed: a middle block's with its entries shuffled.",
            Ranks("spectrum/{place}"),
        ),
    ),
)
def movement(lab: Session, *, nulls: bool) -> Finding | None:
    """Distance, cosine and, with nulls, spectrum of each matrix's difference from its beginning."""
    if lab.subject.initial is None:
        return None
    moved = movements_of(lab.subject.weights, lab.subject.initial, spectra=nulls)
    numbers = {place: numbers for place, (numbers, _) in moved.items()}
    series = series_of(numbers, MEASURES, per_kind=True)
    spectra = {place: change.spectrum for place, (_, change) in moved.items() if change is not None}
    finding = Finding(series, {"spectrum/{place}": spectra} if spectra else {})
    answer = (
        f"Relative distances are {finding.by_kind('distance')}, cosines with the beginning "
        f"{finding.by_kind('cosine')}."
    )
    if nulls:
        used, null = (mean(finding.values(f"effective_rank{kind}")) for kind in ("", "_shuffled"))
        answer += f" The difference uses {used:.2f} of its rank (shuffled: {null:.2f})."
    return finding.answered(answer)


def movements_of(
    backbone: nn.Module, initial: nn.Module, *, spectra: bool = True
) -> dict[Place, tuple[dict[str, float], Decomposition | None]]:
    """Every measure of W_t - W_0, and its spectrum, of every matrix of every block."""
    movements: dict[Place, tuple[dict[str, float], Decomposition | None]] = {}
    for matrix, start in pairs(backbone, initial):
        assert start is not None
        place = Place(matrix.role, matrix.block)
        now, before = matrix.weight.double(), start.weight.double().to(matrix.weight.device)
        change = now - before
        norms = torch.linalg.matrix_norm(torch.stack([now, before, change]))
        numbers = {
            "distance": float(norms[2] / norms[1]),
            "cosine": float((now * before).sum() / norms[0] / norms[1]),
        }
        difference = decompose(place, change, nulls=True) if spectra else None
        if difference is not None and difference.shuffled_R is not None:
            own, null = rank_numbers(difference.values_R), rank_numbers(difference.shuffled_R)
            numbers |= beside_shuffled({name: own[name] for name in RANKS}, null, RANKS[0])
        movements[place] = numbers, difference
    return movements
