"""Spectra of the covariance of activations, by point."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.by_depth import (
    COMPONENT_COLORS,
    COMPONENT_NAMES,
    components_in,
    depth_colors,
    panels_of,
    show_depth,
    states_of,
)
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE, SMOLLM2
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics
from headless.analysis.states.capture import Point
from headless.analysis.states.families import READS, Matrix
from headless.errors import HeadlessError
from headless.geometry import participation, rank_law
from headless.pages.figures import INK, MUTED, compact_ticks, drawing_style

FIRST_RANK, LAST_SHARE = 10, 0.7  # the law is fitted to ranks 10 to 0.7·D
OVERLAP = 16  # directions whose overlap with reading weights is asked for
_ABOUT = (
    "The states at a point form a cloud; the eigenvalues of its covariance say how much it extends "
    "along each of its own axes, from the widest on. A power law, a straight line on two "
    "logarithmic axes, means that there is no scale at which the cloud ends. The null is the same "
    "cloud with its dimensions made independent of each other: its eigenvalues are the variances "
    "of the single dimensions. Because a few dimensions of large variance own the first "
    "eigenvalues, the spectrum of the correlations (every dimension scaled to variance 1) stands "
    "beside it; there the null is flat at 1. Positions 0 are left out."
)


def covariance_spectra(
    statistics: Mapping[Point, Statistics], *, matrices: Sequence[Matrix] = ()
) -> Finding:
    """Eigenvalues, their power law and effective ranks at every point with a covariance.

    Args:
        statistics: of `measure` with `covariance`; points without one are left out.
        matrices: of `block_matrices`; with them the overlap of what reading weights amplify with
            what the stream before them holds.

    Raises:
        HeadlessError: no `post` point with a covariance.
    """
    here = {p: s for p, s in statistics.items() if s.outer_DD is not None}
    if not any(point.component == "post" for point in here):
        raise HeadlessError("no covariance after a block was measured: measure with covariances")
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    for point, s in here.items():
        key = f"covariance_spectra/{point.name}"
        values_D = torch.from_numpy(moments.eigenvalues(s).copy())
        correlated_D = correlation_eigenvalues(s)
        scalars |= {f"{key}/{name}": value for name, value in spread_of(values_D).items()}
        scalars[f"{key}/exponent/correlation"] = rank_law(
            correlated_D, _low(len(correlated_D)), LAST_SHARE
        ).exponent
        scalars[f"{key}/participation/correlation"] = float(participation(correlated_D))
        arrays[f"{point.name}/eigenvalues"] = values_D.numpy()
        arrays[f"{point.name}/null"] = moments.variance(s).sort(descending=True).values.numpy()
        arrays[f"{point.name}/correlation"] = correlated_D.numpy()
    overlaps = _overlaps(statistics, matrices)
    for (block, role), (share, null) in overlaps.items():
        scalars[f"covariance_spectra/overlap/{role}/{block:02d}"] = share
        scalars[f"covariance_spectra/overlap/{role}/{block:02d}/null"] = null
    pictures = [
        Picture(
            "covariance-spectra",
            "Eigenvalues of the covariance by rank, one line a block from light (first) to dark "
            "(last). Dashed: the middle block with its dimensions made independent (null).",
            lambda: _draw_spectra(here, arrays),
        ),
        Picture(
            "covariance-exponents",
            "Exponent of the eigenvalues' power law, and the participation ratio (how many "
            "directions the cloud fills), of covariances (lines) and of correlations (dotted).",
            lambda: _draw_exponents(here, scalars),
        ),
    ]
    if overlaps:
        pictures.append(
            Picture(
                "reading-overlap",
                f"How much of the first {OVERLAP} directions that a weight amplifies most lies in "
                "the first as many directions of the states that it reads. Dashed: directions "
                "drawn uniformly (null).",
                lambda: _draw_overlaps(overlaps),
                wide=False,
            )
        )
    return Finding(
        name="covariance_spectra",
        title="How are activations spread over directions?",
        about=_ABOUT,
        answer=_answer(here, scalars),
        scalars=scalars,
        arrays=arrays,
        pictures=tuple(pictures),
        claims=_claims(here, scalars, arrays),
    )


def spread_of(values_D: Tensor) -> dict[str, float]:
    """The numbers of a cloud from its covariance's eigenvalues, descending, none below 0."""
    law = rank_law(values_D, _low(len(values_D)), LAST_SHARE)
    probability_D = values_D / values_D.sum()
    entropy = -float(torch.special.xlogy(probability_D, probability_D).sum())
    return {
        "exponent": law.exponent,
        "r_squared": law.r_squared,
        "participation": float(participation(values_D)),
        "entropy_rank": float(np.exp(entropy)),
        "first_share": float(probability_D[0]),
        "variance": float(values_D.sum()),
    }


def correlation_eigenvalues(s: Statistics) -> Tensor:
    """Of the states with every dimension scaled to variance 1, descending; those that do not vary
    are left out."""
    covariance_DD = moments.covariance(s)
    std_D = covariance_DD.diagonal().clamp(min=0).sqrt()
    alive_D = std_D > 1e-12 * std_D.max()
    scale_D = std_D[alive_D]
    correlation_DD = covariance_DD[alive_D][:, alive_D] / torch.outer(scale_D, scale_D)
    return torch.linalg.eigvalsh(correlation_DD).clamp(min=0).flip(0)


def _low(width: int) -> float:
    """Where the fit begins, as a share: rank 10, or the tenth part of a narrow model."""
    return min(FIRST_RANK / width, 0.1)


def _overlaps(
    statistics: Mapping[Point, Statistics], matrices: Sequence[Matrix]
) -> dict[tuple[int, str], tuple[float, float]]:
    """Mean squared cosine between two subspaces, and what chance gives."""
    found = {}
    axes: dict[Point, Tensor] = {}
    for matrix in matrices:
        component = "norm1" if matrix.role in ("q", "k", "v") else "norm2"
        point = Point(component, matrix.block)  # type: ignore[arg-type]
        if matrix.role not in READS or point not in statistics:
            continue
        if point not in axes:
            axes[point] = _axes(statistics[point])
        width = len(axes[point])
        k = min(OVERLAP, max(1, width // 4), min(matrix.weight.shape))
        weight = matrix.weight.double().cpu()
        read_DK = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, -k:]
        held_DK = axes[point][:, -k:]
        found[matrix.block, matrix.role] = (
            float((read_DK.T @ held_DK).square().sum()) / k,
            k / width,
        )
    return found


def _axes(s: Statistics) -> Tensor:
    """Principal axes as columns, the largest last: of the covariance, or of the reservoir's."""
    if s.outer_DD is not None:
        covariance_DD = moments.covariance(s)
    else:
        centred_KD = s.sample_KD.double() - s.sample_KD.double().mean(dim=0)
        covariance_DD = centred_KD.T @ centred_KD
    return torch.linalg.eigh(covariance_DD).eigenvectors


def _values(
    statistics: Mapping[Point, Statistics], scalars: Mapping[str, float], component: str, name: str
) -> np.ndarray:
    blocks = [block for block, _ in states_of(statistics, component)]  # type: ignore[arg-type]
    points = [Point(component, block) for block in blocks]  # type: ignore[arg-type]
    return np.array([scalars[f"covariance_spectra/{p.name}/{name}"] for p in points])


def _answer(statistics: Mapping[Point, Statistics], scalars: Mapping[str, float]) -> str:
    exponent, r_squared, rank, first = (
        _values(statistics, scalars, "post", name)
        for name in ("exponent", "r_squared", "participation", "first_share")
    )
    width = next(iter(statistics.values())).powers_G4D.shape[-1]
    return (
        f"After the blocks the eigenvalues fall as rank to the power −{exponent.min():.2f} to "
        f"−{exponent.max():.2f} (R² at least {r_squared.min():.3f}). The states fill "
        f"{rank.min():.1f} to {rank.max():.1f} of {width} directions (participation ratio), and "
        f"the first direction holds {first.min():.0%} to {first.max():.0%} of the variance."
    )


def _claims(
    statistics: Mapping[Point, Statistics],
    scalars: Mapping[str, float],
    arrays: Mapping[str, np.ndarray],
) -> tuple[Claim, ...]:
    r_squared = _values(statistics, scalars, "post", "r_squared")
    blocks = [block for block, _ in states_of(statistics, "post")]
    width = next(iter(statistics.values())).powers_G4D.shape[-1]
    enough = all(float(s.count_G[REST]) > 2 * width for _, s in states_of(statistics, "post"))
    pairs = [
        float(np.mean(arrays[f"post/{b:02d}/eigenvalues"] > arrays[f"post/{a:02d}/eigenvalues"]))
        for a, b in zip(blocks, blocks[1:], strict=False)
    ]
    claims = [
        Claim(
            CONJECTURE,
            "the covariance of the residual stream has a power-law spectrum",
            bool(np.median(r_squared) >= 0.98) if enough else None,
            f"median R² of the fit over blocks {np.median(r_squared):.3f}, at least 0.98"
            + ("" if enough else "; fewer than 2·D states: cannot be asked"),
        ),
        Claim(
            CONJECTURE,
            "the spectra increase with the layer",
            bool(np.mean(pairs) >= 0.8) if pairs else None,
            f"from one block to the next {np.mean(pairs) if pairs else np.nan:.0%} of the "
            "eigenvalues of equal rank grow, at least 80%",
        ),
    ]
    if {"attn", "mlp"} <= {point.component for point in statistics}:
        attn = np.median(_values(statistics, scalars, "attn", "exponent"))
        mlp = np.median(_values(statistics, scalars, "mlp", "exponent"))
        claims.append(
            Claim(
                SMOLLM2,
                "what attention adds has a steeper spectrum than what MLPs add",
                bool(attn > mlp),
                f"median exponent {attn:.2f} of attention against {mlp:.2f} of MLPs",
                kind="own",
            )
        )
    return tuple(claims)


def _draw_spectra(statistics: Mapping[Point, Statistics], arrays: Mapping[str, np.ndarray]) -> Any:
    shown = [c for c in ("post", "attn", "mlp") if c in components_in(statistics)]
    with drawing_style():
        figure, panels = panels_of(len(shown), height=3.4)
        for panel, component in zip(panels, shown, strict=True):
            blocks = [block for block, _ in states_of(statistics, component)]
            for block, color in zip(blocks, depth_colors(len(blocks)), strict=True):
                values = arrays[f"{component}/{block:02d}/eigenvalues"]
                kept = values > 1e-12 * values[0]
                ranks = np.arange(1, len(values) + 1)[kept]
                panel.plot(ranks, values[kept], color=color, lw=1.0)
            null = arrays[f"{component}/{blocks[len(blocks) // 2]:02d}/null"]
            panel.plot(np.arange(1, len(null) + 1), null, "--", color=INK, lw=1.0)
            panel.set(title=COMPONENT_NAMES[component], xlabel="rank")
            compact_ticks(panel.xaxis, log=True)
            compact_ticks(panel.yaxis, log=True)
        panels[0].set_ylabel("eigenvalue")
        show_depth(figure, panels[-1], [block for block, _ in states_of(statistics, "post")])
    return figure


def _draw_exponents(statistics: Mapping[Point, Statistics], scalars: Mapping[str, float]) -> Any:
    rows = {"exponent": "exponent", "participation": "participation ratio"}
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.2)
        for panel, (name, title) in zip(panels, rows.items(), strict=True):
            for component in components_in(statistics):
                if component in ("norm1", "norm2"):
                    continue
                blocks = [block for block, _ in states_of(statistics, component)]
                color = COMPONENT_COLORS[component]
                y = _values(statistics, scalars, component, name)
                label = COMPONENT_NAMES[component]
                panel.plot(blocks, y, color=color, marker="o", markersize=3, label=label)
                y = _values(statistics, scalars, component, f"{name}/correlation")
                panel.plot(blocks, y, ":", color=color, lw=1.1)
            panel.set(title=title, xlabel="block")
            panel.xaxis.get_major_locator().set_params(integer=True)
        compact_ticks(panels[1].yaxis, log=True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _draw_overlaps(overlaps: Mapping[tuple[int, str], tuple[float, float]]) -> Any:
    from headless.pages.figures import series_color

    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.2)
        for index, role in enumerate(r for r in READS if any(key[1] == r for key in overlaps)):
            blocks = sorted(block for block, name in overlaps if name == role)
            y = [overlaps[block, role][0] for block in blocks]
            panel.plot(blocks, y, color=series_color(index), marker="o", markersize=3, label=role)
        null = next(iter(overlaps.values()))[1]
        panel.axhline(null, ls="--", color=MUTED, lw=0.9)
        panel.set(xlabel="block", ylabel="shared part of the subspaces")
        panel.set_ylim(bottom=0)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(ncols=5, fontsize=8)
    return figure
