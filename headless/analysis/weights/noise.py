"""Which singular values are structure: beside Marchenko and Pastur's law of noise."""

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, share
from headless.analysis.drawing import Panel, by_depth, density
from headless.analysis.record import Finding, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.weights.matrices import (
    Decomposition,
    beside_shuffled,
    block_spectra,
    middle_block,
    paired,
)
from headless.geometry import MarchenkoPastur, bulk_std, compare_with_noise

BINS, CURVE = 48, 400
PAIRED = ("above", "below", "distance", "_above", "_below")  # "_": as shares of all


@analysis(
    "weights",
    name="weight_noise",
    title="Weights beside noise",
    about=(
        "The singular values of independent random entries lie between two edges that only the "
        "matrix's shape and the entries' variance decide, spread by Marchenko and Pastur's law. "
        "What lies above the upper edge (beyond Tracy and Widom's slack) was put there by "
        "training; below the lower one are directions that training emptied. `bulk` counts with "
        "the variance that fits the median singular value, which strong directions do not "
        "inflate. The distance is Kolmogorov and Smirnov's; the null is the matrix with its "
        "entries shuffled."
    ),
    states="none",
    figures=(
        density(
            "weight-noise",
            "Singular values of a middle block, as multiples of the upper edge: the matrix (line; "
            "what is larger than fits stands in the last bin), its entries shuffled (filled), "
            "Marchenko and Pastur's law (black).",
            "_densities",
            x="singular value / upper edge",
            null="entries shuffled",
        ),
        by_depth(
            "weight-outside-noise",
            "Singular values outside the law's edges by block; dashed: entries shuffled.",
            Panel("above the upper edge, share of all", ("_above",), limits=(0, None)),
            Panel("below the lower edge, share of all", ("_below",), limits=(0, None)),
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "The spectra are not those of random matrices.",
            share(
                "matrices of which more singular values lie outside the edges than with the "
                "entries shuffled:",
                lambda above, below, *null: above + below > null[0] + null[1],
                "above",
                "below",
                "above_shuffled",
                "below_shuffled",
            )
            >= 0.9,
        ),
        Claim(
            "Staats et al. 2024 (arXiv 2410.17770)",
            "Small singular values leave the law as well: they carry information.",
            share(
                "matrices that are not square (those have no lower edge) of which more lie below "
                "it than with the entries shuffled:",
                lambda below, null: below > null,
                "_below_oblong",
                "below_shuffled",
            )
            >= 0.5,
        ),
    ),
)
def noise(lab: Session, *, nulls: bool) -> Finding:
    """How many singular values of each matrix lie outside the law of noise, and how far it is."""
    spectra = block_spectra(lab, nulls=nulls)
    numbers = {s.place: _numbers(s) for s in spectra}
    series = series_of(numbers, paired(*PAIRED), per_kind=True)
    finding = Finding(series, {"_densities": _densities(spectra)})
    shuffled = finding.values("above_shuffled").mean()
    far, null = (np.median(finding.values(f"distance{kind}")) for kind in ("", "_shuffled"))
    return finding.answered(
        "Above the edge of noise lie, on average over the blocks, "
        f"{finding.by_kind('above', 1)} singular values (of {finding.by_kind('_size', 0)}); with "
        f"the entries shuffled {shuffled:.2f}. The distance from the law is {far:.3f} in the "
        f"median, shuffled {null:.3f}."
    )


def _law(s: Decomposition, std: float | None = None) -> MarchenkoPastur:
    # A matrix of equal entries has no variance: a tiny one keeps every edge above 0.
    return MarchenkoPastur.of(s.shape, max(s.std if std is None else std, 1e-30))


def _numbers(s: Decomposition) -> dict[str, float]:
    assert s.shuffled_R is not None
    own, null = (_beside(values_R, _law(s)) for values_R in (s.values_R, s.shuffled_R))
    bulk = _law(s, bulk_std(s.values_R, *s.shape))
    return beside_shuffled(own, null, *PAIRED) | {
        "above_bulk": compare_with_noise(s.values_R, bulk).above,
        "_below_oblong": own["below"] if s.shape[0] != s.shape[1] else float("nan"),
        "_size": len(s.values_R),
    }


def _beside(values_R: Tensor, law: MarchenkoPastur) -> dict[str, float]:
    noise, size = compare_with_noise(values_R, law), len(values_R)
    return {
        "above": noise.above,
        "below": noise.below,
        "distance": noise.distance,
        "_above": noise.above / size,
        "_below": noise.below / size,
    }


def _densities(spectra: list[Decomposition]) -> dict[Place, Sample]:
    """Of a middle block's matrices, and, without a block, of the law."""
    middle = middle_block([s.place for s in spectra])
    densities = {}
    for s in spectra:
        if s.place.block != middle or s.shuffled_R is None:
            continue
        law = _law(s)
        edge = law.edges()[1]
        values, null = (x.numpy() / edge for x in (s.values_R, s.shuffled_R))
        right = float(max(1.25, min(3.0, values[0] * 1.02)))
        own, edges = np.histogram(values.clip(0, right), BINS, (0, right), density=True)
        shuffled, _ = np.histogram(null, BINS, (0, right), density=True)
        densities[s.place] = Sample(edges, own, shuffled)
        steps = torch.linspace(0, right, CURVE + 1, dtype=torch.float64)
        middles = (steps[1:] + steps[:-1]) / 2
        curve = (law.density(middles * edge) * edge).numpy()
        densities[Place(s.place.kind)] = Sample(steps.numpy(), curve)
    return densities
