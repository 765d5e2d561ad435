"""Sizes of the weights by depth: those that read the residual stream and those that write to it."""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from headless.analysis.claims import Claim, Criterion
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import READS, WRITES, block_matrices, family_of
from headless.analysis.weights.gains import INNER, norms_of
from headless.analysis.weights.matrices import SEED, block_spectra, start_std

ORDERS = 2000  # of the blocks, for the null of a trend
MIN_DEPTH = 5  # blocks for a claim: five in order are so by chance once in 60 times, four in 12
MEASURES = (Measure("rms", null="_start"), Measure("folded_rms"), Measure("spectral_norm"))


def _has_trends(finding: Finding) -> bool:
    return "depth_p" in finding.series


def _known(finding: Finding) -> bool:
    deep = max(place.block or 0 for place in finding.series["rms"].places) + 1 >= MIN_DEPTH
    return deep and bool(np.isfinite(finding.values("depth_spearman")).all())


def _grows(finding: Finding, roles: tuple[str, ...]) -> np.ndarray:
    rho, p = (finding.values(f"depth_{name}", *roles) for name in ("spearman", "p"))
    return (rho > 0) & (p <= 0.05)


def _trends(finding: Finding, roles: tuple[str, ...]) -> str:
    kinds = [place.kind for place in finding.series["depth_p"].at(*roles).places]
    rho, p = (finding.values(f"depth_{name}", *roles) for name in ("spearman", "p"))
    return ", ".join(f"{k} {r:+.2f} (p {q:.3f})" for k, r, q in zip(kinds, rho, p, strict=True))


CLAIMS = (
    Claim(
        CONJECTURE,
        "Writing weights grow with depth.",
        Criterion(
            lambda f: bool(_grows(f, WRITES).all()) if _known(f) else None,
            lambda f: f"Spearman's ρ of each above 0 with p at most 0.05: {_trends(f, WRITES)}",
        ),
        asked=_has_trends,
    ),
    Claim(
        CONJECTURE,
        "Reading weights stay as they are or become smaller with depth.",
        Criterion(
            lambda f: not _grows(f, READS).any() if _known(f) else None,
            lambda f: f"no ρ above 0 with p at most 0.05: {_trends(f, READS)}",
        ),
        asked=_has_trends,
    ),
    Claim(
        "Martin et al. 2021, Conjecture 2023",
        "GPT-2 small and medium have larger weights than large and XL.",
        Criterion(lambda f: None, lambda f: "takes several models of one family"),
    ),
)


@analysis(
    "weights",
    name="weight_norms",
    title="Reading and writing weights by depth",
    about=(
        "Queries, keys, values and the MLP's first matrices read the residual stream, attention's "
        "output and the MLP's last matrix write to it. The root mean square of a matrix's entries "
        "does not depend on its shape; the spectral norm is the largest factor by which it "
        "stretches a vector. `folded` multiplies the columns of a reading matrix by the gain of "
        "the norm before it, which is how large it is in effect. Spearman's ρ says whether a size "
        "rises with depth; the null is every order of the blocks (2,000 random ones of deep "
        "models, and the real one): p is the share of them with as large a |ρ|."
    ),
    cheap=True,
    figures=(
        by_depth(
            "weight-norms",
            "Root mean square entry (dashed: the standard deviation of the config's beginning), "
            "the same with the norm's gain folded in, and spectral norm, by block.",
            Panel("root mean square entry", ("rms",), limits=(0, None)),
            Panel("with the norm's gain", ("folded_rms",), limits=(0, None)),
            Panel("spectral norm", ("spectral_norm",), limits=(0, None)),
        ),
    ),
    claims=CLAIMS,
)
def sizes(lab: Session, *, nulls: bool) -> Finding:
    """Root mean square and spectral norm of each role by depth, with the trends' nulls."""
    backbone = lab.subject.weights
    largest = {s.place: float(s.values_R[0]) for s in block_spectra(lab, nulls=nulls)}
    series = series_of(sizes_of(backbone, largest), MEASURES, per_kind=True)
    sized = Finding(series)
    trends = {}
    for role in series["rms"].kinds if nulls else ():
        trends[Place(role)] = {
            **trend(sized.values("rms", role)),
            "folded_depth_spearman": trend(sized.values("folded_rms", role))["depth_spearman"],
        }
    finding = Finding(series | series_of(trends))
    answer = f"Root mean square entries are {finding.by_kind('rms', 3)}"
    if trends:
        answer += f"; Spearman correlations with depth {finding.by_kind('depth_spearman')}"
    return finding.answered(f"{answer}.")


def sizes_of(backbone: nn.Module, spectral: Mapping[Place, float]) -> dict[Place, dict[str, float]]:
    """Of every matrix of every block; `spectral` are their largest singular values."""
    input_gain = input_gains(backbone)
    numbers = {}
    for matrix in block_matrices(backbone):
        place, weight = Place(matrix.role, matrix.block), matrix.weight.double()
        gain_D = input_gain.get(place)
        folded = weight if gain_D is None else weight * gain_D.to(weight)
        numbers[place] = {
            "rms": float(weight.square().mean().sqrt()),
            "frobenius": float(weight.square().sum().sqrt()),
            "spectral_norm": spectral[place],
            "folded_rms": float(folded.square().mean().sqrt()),
        }
        if std := start_std(backbone, matrix.role):
            numbers[place]["_start"] = std
    return numbers


def input_gains(backbone: nn.Module) -> dict[Place, Tensor]:
    """The gain of the norm whose output a reading matrix sees [D].

    Where the norms come after the additions (BERT), attention reads the previous block's second
    one, and in the first block that of the embeddings, which is left out.
    """
    post = family_of(backbone).post_norm
    gains: dict[Place, Tensor] = {}
    for norm in norms_of(backbone):
        kind, block = norm.place.kind, norm.place.block
        if kind not in INNER or block is None:
            continue
        attention = (kind == "norm1") != post
        reader = block + 1 if post and attention else block
        roles = ("q", "k", "v") if attention else ("gate", "up")
        gains |= {Place(role, reader): norm.gain_D for role in roles}
    return gains


def trend(values_L: np.ndarray) -> dict[str, float]:
    """How a positive number goes with depth; NaN for fewer than 3 blocks or equal values.

    Spearman's ρ and its p, Pearson's r, slope of the logarithm a block. The p-value is exact for
    few blocks and (b + 1)/(m + 1) of m random orders for many: never 0.
    """
    names = ("depth_spearman", "depth_p", "depth_pearson", "depth_log_slope")
    depth = len(values_L)
    if depth < 3 or not np.isfinite(values_L).all() or np.ptp(values_L) == 0:
        return dict.fromkeys(names, math.nan)
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
    numbers = (
        spearmanr(place_L, values_L).statistic,
        test.pvalue,
        np.corrcoef(place_L, values_L)[0, 1],
        np.polyfit(place_L, np.log(values_L), 1)[0],
    )
    return dict(zip(names, map(float, numbers), strict=True))
