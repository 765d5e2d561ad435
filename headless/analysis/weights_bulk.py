"""Which singular values are structure: beside Marchenko and Pastur's law of noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.weights_drawing import (
    bottom_labels,
    legend,
    lines_by_depth,
    new_figure,
    panels_for,
    role_color,
    role_legend,
)
from headless.analysis.weights_measure import (
    Spectrum,
    by_role,
    in_words,
    joined,
    role_arrays,
    role_means,
    roles_in,
    share,
)
from headless.geometry import MarchenkoPastur, bulk_std, compare_with_noise, log_distance
from headless.pages.figures import INK, MUTED, drawing_style

NAME = "weight_noise"
_ABOUT = (
    "The singular values of a matrix of independent random entries lie between two edges that "
    "only its shape and the entries' variance decide, and are spread between them by Marchenko and "
    "Pastur's law. What lies above the upper edge (beyond the slack that Tracy and Widom's law "
    "gives a matrix of this size) was put there by training; what lies below the lower one are "
    "directions that training emptied. The variance is that of the entries, which strong "
    "directions inflate; beside it stand the count with the variance that fits the median singular "
    "value (`bulk`), and with that of the beginning of training (`start`: measured where the first "
    "checkpoint was given, else from the config). The distance is Kolmogorov and Smirnov's; the "
    "null is the same matrix with its entries shuffled, which has the same variance."
)


def noise_finding(spectra: Sequence[Spectrum]) -> Finding:
    """How many singular values of each matrix lie outside the law of noise, and how far it is."""
    own = {id(s): compare_with_noise(s.values_R, _law(s)) for s in spectra}
    null = {id(s): compare_with_noise(s.shuffled_R, _law(s)) for s in spectra}
    bulk = {id(s): bulk_std(s.values_R, *s.shape) for s in spectra}
    tables = {
        "above": by_role(spectra, lambda s: own[id(s)].above),
        "above_shuffled": by_role(spectra, lambda s: null[id(s)].above),
        "below": by_role(spectra, lambda s: own[id(s)].below),
        "below_shuffled": by_role(spectra, lambda s: null[id(s)].below),
        "above_bulk": by_role(
            spectra, lambda s: compare_with_noise(s.values_R, _law(s, bulk[id(s)])).above
        ),
        "soft_rank": by_role(spectra, lambda s: own[id(s)].soft_rank),
        "distance": by_role(spectra, lambda s: own[id(s)].distance),
        "distance_shuffled": by_role(spectra, lambda s: null[id(s)].distance),
        "log_distance": by_role(spectra, lambda s: own[id(s)].log_distance),
        "log_distance_to_shuffled": by_role(
            spectra, lambda s: log_distance(s.values_R, s.shuffled_R)
        ),
        "bulk_variance": by_role(spectra, lambda s: (bulk[id(s)] / s.std) ** 2),
    }
    if all(s.start_std for s in spectra):
        tables["above_start"] = by_role(
            spectra, lambda s: compare_with_noise(s.values_R, _law(s, s.start_std)).above
        )
    size = by_role(spectra, lambda s: len(s.values_R))
    outside = joined(tables["above"]) + joined(tables["below"])
    noisy = joined(tables["above_shuffled"]) + joined(tables["below_shuffled"])
    more = share(outside > noisy)
    oblong = joined(by_role(spectra, lambda s: s.shape[0] != s.shape[1])) > 0
    below = share((joined(tables["below"]) > joined(tables["below_shuffled"]))[oblong])
    return Finding(
        name=NAME,
        title="Weights beside noise",
        about=_ABOUT,
        answer=(
            f"Above the edge of noise lie, on average over the blocks, "
            f"{in_words(tables['above'], 1)} singular values (of {in_words(size, 0)}); with the "
            f"entries shuffled {np.mean(joined(tables['above_shuffled'])):.2f}. The distance from "
            f"the law is {np.median(joined(tables['distance'])):.3f} in the median, shuffled "
            f"{np.median(joined(tables['distance_shuffled'])):.3f}."
        ),
        scalars=role_means(NAME, tables),
        arrays=role_arrays(tables),
        pictures=(
            Picture(
                "weight-noise",
                "Singular values of a middle block, as multiples of the upper edge: the matrix "
                "(filled), its entries shuffled (outlined), Marchenko and Pastur's law (line).",
                lambda: draw_densities(spectra),
            ),
            Picture(
                "weight-outside-noise",
                "Singular values above and below the law's edges by block, as a share of all; "
                "dashed: entries shuffled.",
                lambda: draw_outside(tables, size),
            ),
        ),
        claims=(
            Claim(
                CONJECTURE,
                "The spectra are not those of random matrices.",
                more >= 0.9,
                f"in {more:.0%} of the matrices more singular values lie outside the edges than "
                "with the entries shuffled, at least 90 %",
            ),
            Claim(
                "Staats et al. 2024 (arXiv 2410.17770)",
                "Small singular values leave the law as well: they carry information.",
                below >= 0.5 if oblong.any() else None,
                f"in {below:.0%} of the {oblong.sum()} matrices that are not square (those have no "
                "lower edge) more lie below it than with the entries shuffled; at least half",
            ),
        ),
    )


def _law(s: Spectrum, std: float | None = None) -> MarchenkoPastur:
    # A matrix of equal entries has no variance: a tiny one keeps every edge above 0.
    return MarchenkoPastur.of(s.shape, max(s.std if std is None else std, 1e-30))


def draw_densities(spectra: Sequence[Spectrum]) -> Any:
    """One panel a role: the middle block's histogram, its null's and the law."""
    roles = roles_in(spectra)
    middle = (1 + max(s.block for s in spectra)) // 2
    with drawing_style():
        figure, panels = panels_for([f"{role}, block {middle}" for role in roles])
        for panel, role in zip(panels, roles, strict=True):
            s = next(s for s in spectra if s.role == role and s.block == middle)
            law = _law(s)
            edge = law.edges()[1]
            values, null = s.values_R.numpy() / edge, s.shuffled_R.numpy() / edge
            right = float(max(1.25, min(3.0, values[0] * 1.02)))
            bins = np.linspace(0, right, 49)
            panel.hist(
                np.clip(values, 0, right), bins, density=True, color=role_color(role), alpha=0.45
            )
            panel.hist(null, bins, density=True, histtype="step", color=MUTED, linewidth=1.0)
            x = torch.linspace(0, right, 400, dtype=torch.float64)
            panel.plot(x.numpy(), (law.density(x * edge) * edge).numpy(), color=INK, linewidth=1.1)
            if values[0] > right:
                panel.text(
                    0.98, 0.9, f"largest {values[0]:.1f}", transform=panel.transAxes, ha="right"
                )
        bottom_labels(panels, "singular value / upper edge", "density")
        legend(
            figure,
            [
                ("the matrix", role_color(roles[0]), "solid", 5.0),
                ("entries shuffled", MUTED, "solid", 1.0),
                ("Marchenko-Pastur", INK, "solid", 1.1),
            ],
        )
    return figure


def draw_outside(tables: dict[str, dict[str, np.ndarray]], size: dict[str, np.ndarray]) -> Any:
    """Two panels over depth: the share of values above and below the edges."""
    with drawing_style():
        figure = new_figure(11.2, 3.0)
        for panel, key in zip(figure.subplots(1, 2), ("above", "below"), strict=True):
            for name, dashed in ((key, False), (f"{key}_shuffled", True)):
                shares = {role: values / size[role] for role, values in tables[name].items()}
                lines_by_depth(panel, shares, dashed=dashed)
            panel.set_title(f"singular values {key} the edges of noise, share of all")
            panel.set_ylim(bottom=0)
        role_legend(figure, list(size), null="entries shuffled")
    return figure
