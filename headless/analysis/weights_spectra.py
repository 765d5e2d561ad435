"""A "CAT scan" of every matrix: singular values, two power laws, effective ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.weights_drawing import (
    NULL_DASH,
    bottom_labels,
    depth_alpha,
    legend,
    lines_by_depth,
    logarithmic,
    new_figure,
    panels_for,
    role_color,
    role_legend,
    spectrum_line,
)
from headless.analysis.weights_measure import (
    Spectrum,
    by_role,
    in_words,
    joined,
    mean,
    role_arrays,
    role_means,
    roles_in,
    share,
)
from headless.geometry import rank_law, ranks_of, tail_law
from headless.pages.figures import INK, MUTED, drawing_style

NAME = "weight_spectra"
_ABOUT = (
    "Every weight matrix stretches some directions more than others; its singular values, sorted, "
    "say by how much. Over their rank, with both axes logarithmic, a straight line is a power law "
    "σ_k ~ k^-b: b is fitted between 2 and 80 % of the ranks, and the knee is where the values "
    "fall below half of that line for good. The tail exponent α is another law, of the density of "
    "the largest eigenvalues σ² alone (Clauset's estimator). Effective ranks say how many "
    "directions are in use. The null is the same matrix with its entries shuffled, which has the "
    "same distribution of values and no directions: what it also shows is no structure."
)


def own_tables(spectra: Sequence[Spectrum]) -> dict[str, dict[str, np.ndarray]]:
    """Every measure of the matrices as they are, by role, over the blocks [L]; no nulls."""
    laws = {id(s): rank_law(s.values_R) for s in spectra}
    tails = {id(s): tail_law(s.values_R.square()) for s in spectra}
    ranks = {id(s): ranks_of(s.values_R) for s in spectra}
    return {
        "rank_exponent": by_role(spectra, lambda s: laws[id(s)].exponent),
        "rank_r_squared": by_role(spectra, lambda s: laws[id(s)].r_squared),
        "knee": by_role(spectra, lambda s: laws[id(s)].knee / len(s.values_R)),
        "alpha": by_role(spectra, lambda s: tails[id(s)].alpha),
        "alpha_error": by_role(spectra, lambda s: tails[id(s)].standard_error),
        "tail_size": by_role(spectra, lambda s: tails[id(s)].count),
        "over_exponential": by_role(spectra, lambda s: tails[id(s)].exponential),
        "over_lognormal": by_role(spectra, lambda s: tails[id(s)].lognormal),
        "effective_rank": by_role(spectra, lambda s: ranks[id(s)].effective / len(s.values_R)),
        "stable_rank": by_role(spectra, lambda s: ranks[id(s)].stable),
        "participation_ratio": by_role(spectra, lambda s: ranks[id(s)].participation),
        "first_share": by_role(spectra, lambda s: ranks[id(s)].first_share),
        "spectral_norm": by_role(spectra, lambda s: float(s.values_R[0])),
    }


def spectra_finding(spectra: Sequence[Spectrum]) -> Finding:
    """Spectra, rank exponents, tail exponents and effective ranks of every matrix of the blocks."""
    null_ranks = {id(s): ranks_of(s.shuffled_R) for s in spectra}
    tables = own_tables(spectra) | {
        "rank_exponent_shuffled": by_role(spectra, lambda s: rank_law(s.shuffled_R).exponent),
        "alpha_shuffled": by_role(spectra, lambda s: tail_law(s.shuffled_R.square()).alpha),
        "effective_rank_shuffled": by_role(
            spectra, lambda s: null_ranks[id(s)].effective / len(s.values_R)
        ),
    }
    shown = ("rank_exponent", "rank_exponent_shuffled", "rank_r_squared", "alpha", "effective_rank")
    scalars = role_means(NAME, {key: tables[key] for key in shown})
    rest = {key: table for key, table in tables.items() if key not in shown}
    scalars |= role_means(NAME, rest)
    return Finding(
        name=NAME,
        title="Singular values of the weights",
        about=_ABOUT,
        answer=(
            f"Rank exponents are, on average over the blocks, {in_words(tables['rank_exponent'])} "
            f"(shuffled: {in_words(tables['rank_exponent_shuffled'])}); the matrices use "
            f"{in_words(tables['effective_rank'])} of their rank (shuffled: "
            f"{mean(joined(tables['effective_rank_shuffled'])):.2f})."
        ),
        scalars=scalars,
        arrays=role_arrays(tables) | _spectrum_arrays(spectra),
        pictures=(
            Picture(
                "weight-spectra",
                "Singular values over their rank, one line a block (light: early, dark: late). "
                "Dashed: a middle block with its entries shuffled; dotted: the same block before "
                "training, where it was given.",
                lambda: draw_spectra(spectra),
            ),
            Picture(
                "weight-exponents",
                "Rank exponent and tail exponent by block; dashed: entries shuffled.",
                lambda: draw_exponents(tables),
            ),
            Picture(
                "weight-ranks",
                "Effective rank as a share of the whole, and the strongest direction's share of "
                "the squared norm; dashed: entries shuffled.",
                lambda: draw_ranks(tables),
            ),
        ),
        claims=_claims(tables),
    )


def _spectrum_arrays(spectra: Sequence[Spectrum]) -> dict[str, np.ndarray]:
    return {f"spectrum/{s.role}/{s.block:02d}": s.values_R.numpy() for s in spectra}


def _claims(tables: dict[str, dict[str, np.ndarray]]) -> tuple[Claim, ...]:
    r_squared, knee = joined(tables["rank_r_squared"]), joined(tables["knee"])
    known = np.isfinite(r_squared)
    lawful = share((r_squared[known] >= 0.95) & (knee[known] <= 1))
    spreads = {
        role: float(values.std() / abs(values.mean()))
        for role, values in tables["rank_exponent"].items()
        if np.isfinite(values).all() and len(values) > 1
    }
    widest = max(spreads, key=lambda role: spreads[role], default=None)
    alpha = joined(tables["alpha"])
    alpha = alpha[np.isfinite(alpha)]
    inside = share((alpha >= 2) & (alpha <= 6))
    null = joined(tables["alpha_shuffled"])
    null_inside = share((null[np.isfinite(null)] >= 2) & (null[np.isfinite(null)] <= 6))
    return (
        Claim(
            CONJECTURE,
            "All weights' singular values decay as a power law, then fall off rapidly.",
            lawful >= 0.8 if known.any() else None,
            f"{lawful:.0%} of the matrices have R² of at least 0.95 and a knee; at least 80 %",
        ),
        Claim(
            CONJECTURE,
            "The spectra of a role are nearly equal in most blocks.",
            spreads[widest] <= 0.25 if widest else None,
            f"rank exponents vary most for {widest}: standard deviation {spreads[widest]:.2f} of "
            "their mean, at most 0.25"
            if widest
            else "it takes two blocks or more",
        ),
        Claim(
            "Martin et al. 2021 (WeightWatcher)",
            "Tail exponents of well-trained layers lie between 2 and 6.",
            inside >= 0.9 if len(alpha) else None,
            f"{inside:.0%} of the matrices, at least 90 % (shuffled: {null_inside:.0%})",
        ),
    )


def draw_spectra(spectra: Sequence[Spectrum]) -> Any:
    """One panel a role: every block's spectrum over that of a shuffled one."""
    roles = roles_in(spectra)
    depth = 1 + max(s.block for s in spectra)
    with drawing_style():
        figure, panels = panels_for(roles)
        for panel, role in zip(panels, roles, strict=True):
            for s in (s for s in spectra if s.role == role):
                spectrum_line(
                    panel,
                    s.values_R,
                    color=role_color(role),
                    alpha=depth_alpha(s.block, depth),
                    linewidth=1.0,
                )
                if s.block == depth // 2:
                    style: Any = {"color": INK, "linewidth": 1.1, "zorder": 3}
                    spectrum_line(panel, s.shuffled_R, linestyle=NULL_DASH, **style)
                    if s.start_R is not None:
                        spectrum_line(panel, s.start_R, linestyle="dotted", **style)
        logarithmic(panels)
        bottom_labels(panels, "rank", "singular value")
        entries = [
            ("first block", _shade(0.3), "solid", 1.4),
            ("last block", MUTED, "solid", 1.4),
            ("entries shuffled", INK, NULL_DASH, 1.1),
        ]
        if any(s.start_R is not None for s in spectra):
            entries.append(("before training", INK, "dotted", 1.1))
        legend(figure, entries)
    return figure


def _shade(alpha: float) -> Any:
    return (MUTED, alpha)


def draw_exponents(tables: dict[str, dict[str, np.ndarray]]) -> Any:
    """Two panels over depth: b and α."""
    with drawing_style():
        figure = new_figure(11.2, 3.1)
        left, right = figure.subplots(1, 2)
        for panel, key in ((left, "rank_exponent"), (right, "alpha")):
            lines_by_depth(panel, tables[key])
            lines_by_depth(panel, tables[f"{key}_shuffled"], dashed=True)
        left.set_title("rank exponent b of σ_k ~ k^-b")
        right.set_title("tail exponent α of p(λ) ~ λ^-α, λ = σ² (shaded: 2 to 6)")
        right.axhspan(2, 6, color=MUTED, alpha=0.08, linewidth=0)
        role_legend(figure, list(tables["alpha"]), null="entries shuffled")
    return figure


def draw_ranks(tables: dict[str, dict[str, np.ndarray]]) -> Any:
    """Two panels over depth: effective rank, share of the first direction."""
    with drawing_style():
        figure = new_figure(11.2, 3.1)
        left, right = figure.subplots(1, 2)
        lines_by_depth(left, tables["effective_rank"])
        lines_by_depth(left, tables["effective_rank_shuffled"], dashed=True)
        lines_by_depth(right, tables["first_share"])
        left.set_title("effective rank, share of the full rank")
        right.set_title("strongest direction's share of the squared norm")
        left.set_ylim(top=1.02)
        right.set_ylim(bottom=0)
        role_legend(figure, list(tables["alpha"]), null="entries shuffled")
    return figure
