"""Sizes of the weights by depth: those that read the residual stream and those that write to it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import READS, WRITES, block_matrices, family_of
from headless.analysis.weights_drawing import lines_by_depth, role_legend
from headless.analysis.weights_gains import norms_of
from headless.analysis.weights_measure import (
    SEED,
    by_role,
    in_words,
    role_arrays,
    role_means,
    start_std,
)
from headless.geometry import singular_spectrum
from headless.pages.figures import MUTED, drawing_style, new_figure

NAME = "weight_norms"
ORDERS = 2000  # of the blocks, for the null of a trend
MIN_DEPTH = 5  # blocks for a claim: five in order are so by chance once in 60 times, four in 12
_ABOUT = (
    "Queries, keys, values and the MLP's first matrices read the residual stream, attention's "
    "output and the MLP's last matrix write to it. The root mean square of a matrix's entries "
    "does not depend on its shape; the spectral norm is the largest factor by which it stretches "
    "a vector. `folded` multiplies the columns of a reading matrix by the gain of the norm before "
    "it, which is how large it is in effect. Spearman's ρ says whether a size rises with depth; "
    "the null is every order of the blocks (2,000 random ones of deep models, and the real one): "
    "p is the share of them with as large a |ρ|."
)


@dataclass(frozen=True)
class Size:
    """One matrix: root mean square entry, two norms, and the first with the gain folded in."""

    block: int
    role: str
    rms: float
    frobenius: float
    spectral: float
    folded: float


def sizes_of(
    backbone: nn.Module, spectral: dict[tuple[int, str], float] | None = None
) -> list[Size]:
    """Of every matrix of every block.

    Args:
        backbone: of a family that the laboratory knows.
        spectral: largest singular values by (block, role), where they are known already.
    """
    gains = input_gains(backbone)
    found = []
    for matrix in block_matrices(backbone):
        weight = matrix.weight.double()
        place = (matrix.block, matrix.role)
        largest = spectral[place] if spectral else float(singular_spectrum(weight)[0])
        gain = gains.get(place)
        folded = weight if gain is None else weight * gain.to(weight)
        found.append(
            Size(
                block=matrix.block,
                role=matrix.role,
                rms=float(weight.square().mean().sqrt()),
                frobenius=float(weight.square().sum().sqrt()),
                spectral=largest,
                folded=float(folded.square().mean().sqrt()),
            )
        )
    return found


def input_gains(backbone: nn.Module) -> dict[tuple[int, str], Tensor]:
    """The gain of the norm whose output a reading matrix sees [D], by (block, role).

    Where the norms come after the additions (BERT), attention reads the previous block's second
    one, and the first block the embeddings' own, which is left out here.
    """
    post = family_of(backbone).post_norm
    gains: dict[tuple[int, str], Tensor] = {}
    for norm in norms_of(backbone):
        if norm.place == "final":
            continue
        attention = (norm.place == "norm1") != post
        block = norm.block + 1 if post and attention else norm.block
        roles = ("q", "k", "v") if attention else ("gate", "up")
        gains |= {(block, role): norm.gain_D for role in roles}
    return gains


@dataclass(frozen=True)
class Trend:
    """Of a size over depth: Spearman's ρ and its p, Pearson's r, slope of the logarithm a block.

    The p-value is exact for few blocks and (b + 1)/(m + 1) of m random orders for many: never 0.
    """

    spearman: float
    p: float
    pearson: float
    log_slope: float


def trend(values_L: np.ndarray) -> Trend:
    """How a positive number goes with depth; NaN for fewer than 3 blocks or equal values."""
    depth = len(values_L)
    if depth < 3 or not np.isfinite(values_L).all() or np.ptp(values_L) == 0:
        return Trend(math.nan, math.nan, math.nan, math.nan)
    from scipy.stats import permutation_test, rankdata, spearmanr

    place_L, rank_L = np.arange(depth, dtype=float), rankdata(values_L)  # equal ones share a rank

    def size(ranks: np.ndarray, axis: int = -1) -> np.ndarray:
        del axis  # the last one: ρ of every order but for its scale, which no order changes
        return np.abs((ranks - rank_L.mean()) @ (place_L - place_L.mean()))

    test = permutation_test(
        (rank_L,),
        size,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=ORDERS,
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return Trend(
        spearman=float(spearmanr(place_L, values_L).statistic),
        p=float(test.pvalue),
        pearson=float(np.corrcoef(place_L, values_L)[0, 1]),
        log_slope=float(np.polyfit(place_L, np.log(values_L), 1)[0]),
    )


def size_tables(sizes: list[Size]) -> dict[str, dict[str, np.ndarray]]:
    """Every size, by role, over the blocks [L]."""
    return {
        "rms": by_role(sizes, lambda s: s.rms),
        "frobenius": by_role(sizes, lambda s: s.frobenius),
        "spectral_norm": by_role(sizes, lambda s: s.spectral),
        "folded_rms": by_role(sizes, lambda s: s.folded),
    }


def norms_finding(sizes: list[Size], backbone: nn.Module) -> Finding:
    """Root mean square and spectral norm of each role by depth, with the trends' nulls."""
    tables = size_tables(sizes)
    trends = {role: trend(values) for role, values in tables["rms"].items()}
    scalars = role_means(NAME, tables)
    for role, found in trends.items():
        scalars |= {
            f"{NAME}/{role}/depth_spearman": found.spearman,
            f"{NAME}/{role}/depth_p": found.p,
            f"{NAME}/{role}/depth_pearson": found.pearson,
            f"{NAME}/{role}/depth_log_slope": found.log_slope,
        }
        folded = trend(tables["folded_rms"][role])
        scalars[f"{NAME}/{role}/folded_depth_spearman"] = folded.spearman
    told = ", ".join(
        f"{role} {t.spearman:+.2f} (p {t.p:.2f})".replace("-", "−") for role, t in trends.items()
    )
    return Finding(
        name=NAME,
        title="Reading and writing weights by depth",
        about=_ABOUT,
        answer=f"Root mean square entries are {in_words(tables['rms'], 3)}; their Spearman "
        f"correlations with depth {told}.",
        scalars=scalars,
        arrays=role_arrays(tables),
        pictures=(
            Picture(
                "weight-norms",
                "Root mean square entry, the same with the norm's gain folded in, and spectral "
                "norm, by block; the grey line is the standard deviation of the config's "
                "beginning.",
                lambda: draw_norms(tables, start_std(backbone, "q")),
            ),
        ),
        claims=_claims(trends, len(next(iter(tables["rms"].values())))),
    )


def _claims(trends: dict[str, Trend], depth: int) -> tuple[Claim, ...]:
    asked = depth >= MIN_DEPTH and all(np.isfinite(t.spearman) for t in trends.values())
    writes = {role: trends[role] for role in WRITES if role in trends}
    reads = {role: trends[role] for role in READS if role in trends}

    def told(group: dict[str, Trend]) -> str:
        return ", ".join(f"{role} {t.spearman:+.2f} (p {t.p:.3f})" for role, t in group.items())

    return (
        Claim(
            CONJECTURE,
            "Writing weights grow with depth.",
            all(t.spearman > 0 and t.p <= 0.05 for t in writes.values()) if asked else None,
            f"Spearman's ρ of each above 0 with p at most 0.05: {told(writes)}",
        ),
        Claim(
            CONJECTURE,
            "Reading weights stay as they are or become smaller with depth.",
            all(t.spearman <= 0 or t.p > 0.05 for t in reads.values()) if asked else None,
            f"no ρ above 0 with p at most 0.05: {told(reads)}",
        ),
        Claim(
            "Martin et al. 2021, Conjecture 2023",
            "GPT-2 small and medium have larger weights than large and XL.",
            None,
            "takes several models of one family",
        ),
    )


def draw_norms(tables: dict[str, dict[str, np.ndarray]], start: float | None) -> Any:
    """Three panels over depth."""
    titles = {
        "rms": "root mean square entry",
        "folded_rms": "with the norm's gain",
        "spectral_norm": "spectral norm",
    }
    with drawing_style():
        figure = new_figure(11.2, 3.1)
        for panel, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            lines_by_depth(panel, tables[key])
            panel.set_title(title)
            if key == "rms" and start:
                panel.axhline(start, color=MUTED, linewidth=0.9)
            panel.set_ylim(bottom=0)
        role_legend(figure, list(tables["rms"]))
    return figure
