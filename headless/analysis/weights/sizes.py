"""Sizes by depth: of the weights that read the stream and write to it, and gains of the norms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Criterion, share
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.record import Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import READS, WRITES, block_matrices, family_of
from headless.analysis.weights.matrices import SEED, block_spectra
from headless.geometry import moments
from headless.models.backbone import blocks

ORDERS = 2000  # of the blocks, for the null of a trend
MIN_DEPTH = 5  # blocks for a claim: five in order are so by chance once in 60 times, four in 12


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


@analysis(
    "weights",
    name="weight_norms",
    title="Reading and writing weights by depth",
    about=(
        "Queries, keys, values and the MLP's first matrices read the residual stream, attention's "
        "output and the MLP's last matrix write to it. The spectral norm is the largest factor by "
        "which a matrix stretches a vector; `folded` is a reading matrix with the gain of the "
        "norm before it. Spearman's ρ says whether a size rises with depth; the null is every "
        "order of the blocks (2,000 random ones of deep models)."
    ),
    states="none",
    cheap=True,
    figures=(
        by_depth(
            "weight-norms",
            "Root mean square entry, the same with the norm's gain, and spectral norm, by block.",
            Panel("root mean square entry", ("rms",), limits=(0, None)),
            Panel("with the norm's gain", ("folded_rms",), limits=(0, None)),
            Panel("spectral norm", ("spectral_norm",), limits=(0, None)),
        ),
    ),
    claims=(
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
    ),
)
def sizes(lab: Session, *, nulls: bool) -> Finding:
    """Root mean square and spectral norm of each role by depth, with the trends' nulls."""
    largest = {s.place: float(s.values_R[0]) for s in block_spectra(lab, nulls=nulls)}
    series = series_of(sizes_of(lab.subject.weights, largest), per_kind=True)
    roles = series["rms"].kinds if nulls else ()
    trends = {Place(role): trend(series["rms"].at(role).value) for role in roles}
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
            "spectral_norm": spectral[place],
            "folded_rms": float(folded.square().mean().sqrt()),
        }
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
        if block is None:
            continue
        attention = (kind == "norm1") != post
        reader = block + 1 if post and attention else block
        roles = ("q", "k", "v") if attention else ("gate", "up")
        gains |= {Place(role, reader): norm.gain_D for role in roles}
    return gains


def trend(values_L: np.ndarray) -> dict[str, float]:
    """Spearman's ρ of a number with depth, and its p: exact for few blocks, (b + 1)/(m + 1) of m
    random orders for many, never 0; NaN for fewer than 3 blocks or equal values."""
    if len(values_L) < 3 or not np.isfinite(values_L).all() or np.ptp(values_L) == 0:
        return {"depth_spearman": math.nan, "depth_p": math.nan}
    from scipy.stats import PermutationMethod, pearsonr, rankdata

    orders = PermutationMethod(n_resamples=ORDERS, rng=np.random.default_rng(SEED))
    found = pearsonr(np.arange(len(values_L)), rankdata(values_L), method=orders)
    return {"depth_spearman": float(found.statistic), "depth_p": float(found.pvalue)}


TOP = 5  # dimensions
QUANTILES = {"_smallest": 0.0, "_low": 0.05, "_high": 0.95, "_largest": 1.0}
LINES = ("mean", *QUANTILES)
INNER = ("norm1", "norm2")
GAINS = (
    Measure("_low", "5 %"),
    Measure("_high", "95 %"),
    Measure("excess_kurtosis", null="_chance"),
)


@dataclass(frozen=True)
class Norm:
    """One norm's parameters; the kind of place is "norm1", "norm2" or "final"."""

    place: Place
    gain_D: Tensor
    bias_D: Tensor | None


@analysis(
    "weights",
    name="norm_gains",
    title="Gains of the norms",
    about=(
        "A norm's gain multiplies the state's dimensions after they were made comparable: the "
        "block reads one with a gain near 0 hardly at all (silenced: below 5 % of the median) and "
        "one with a large gain above all. Gains begin at 1. Skew and excess kurtosis are 0 for a "
        "Gaussian, the null. `overlap` is Jaccard's of the five dimensions farthest from the "
        "median in neighbouring blocks; by chance 5/(2·width)."
    ),
    states="none",
    cheap=True,
    figures=(
        by_depth(
            "norm-gains",
            "Gains by block: mean, smallest and largest, 5 and 95 % of the dimensions. Then excess "
            "kurtosis; 95 % of Gaussian samples of this width lie below the dashed line.",
            Panel("gains of norm1", LINES, ("norm1",)),
            Panel("gains of norm2", LINES, ("norm2",)),
            Panel("excess kurtosis of the gains", ("excess_kurtosis",), INNER, log="s"),
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "Gains in the blocks are well below 1 (0.45 in the middle of GPT-2-medium).",
            share("norms of a mean gain of at most 0.8:", lambda mean: mean <= 0.8, "_learnt")
            >= 0.8,
            asked=lambda f: len(f.values("mean", *INNER)) > 0,
        ),
        Claim(
            CONJECTURE,
            "Gains have a high kurtosis: a few dimensions stand out.",
            share(
                "norms whose gains have an excess kurtosis of at least 1:",
                lambda learnt, kurtosis: kurtosis >= 1,
                "_learnt",
                "excess_kurtosis",
            )
            >= 0.5,
            asked=lambda f: len(f.values("mean", *INNER)) > 0,
        ),
        Claim(
            CONJECTURE,
            "The outlying gains are mostly on the left, towards 0.",
            share("norms of negative skew:", lambda learnt, skew: skew < 0, "_learnt", "skew")
            >= 0.5,
            asked=lambda f: len(f.values("mean", *INNER)) > 0,
        ),
    ),
)
def gains(lab: Session, *, nulls: bool) -> Finding | None:
    """Distribution of gains and biases by block; None for a model whose norms have none."""
    norms = norms_of(lab.subject.weights)
    if not norms:
        return None
    numbers = {norm.place: _numbers(norm) for norm in norms}
    inner = [numbers[norm.place] for norm in norms if norm.place.kind in INNER]
    learnt = any(abs(n["mean"] - 1) >= 1e-6 or np.isfinite(n["excess_kurtosis"]) for n in inner)
    top = {norm.place: set(top_dimensions(norm.gain_D).tolist()) for norm in norms}
    for norm, following in zip(norms, [*norms[1:], None], strict=True):
        gain = numbers[norm.place]
        gain["_learnt"] = gain["mean"] if learnt and norm.place.kind in INNER else math.nan
        if following is not None and following.place.kind == norm.place.kind:
            own, theirs = top[norm.place], top[following.place]
            gain["overlap"] = len(own & theirs) / len(own | theirs)
    arrays: dict[Place, Any] = {
        Place(kind): torch.stack([n.gain_D for n in norms if n.place.kind == kind]).numpy()
        for kind in dict.fromkeys(norm.place.kind for norm in norms)
    }
    finding = Finding(series_of(numbers, GAINS, per_kind=True), {"{place}/gain": arrays})
    return finding.answered(
        f"Mean gains are {finding.by_kind('mean')}. Silenced dimensions: "
        f"{finding.values('silenced').sum():.0f}."
    )


def norms_of(backbone: nn.Module) -> list[Norm]:
    """Both norms of every block and the final one, where they have gains."""
    family = family_of(backbone)
    places = [
        (Place(kind, i), block.get_submodule(name))
        for kind in INNER
        if (name := getattr(family, kind)) is not None
        for i, block in enumerate(blocks(backbone))
    ]
    if family.final_norm:
        places.append((Place("final"), backbone.get_submodule(family.final_norm)))
    norms = []
    for place, norm in places:
        gain, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if isinstance(gain, Tensor):
            bias = bias.detach().double().cpu() if isinstance(bias, Tensor) else None
            gain_D = gain.detach().double().cpu() + family.gain_at_0
            norms.append(Norm(place, gain_D, bias))
    return norms


def _numbers(norm: Norm) -> dict[str, float]:
    gain_D = norm.gain_D
    shape, median = moments(gain_D), float(gain_D.quantile(0.5))
    numbers = {
        "mean": shape.mean,
        "median": median,
        "std": shape.std,
        "skew": shape.skew,
        "excess_kurtosis": shape.excess_kurtosis,
        "_chance": 1.96 * (24 / len(gain_D)) ** 0.5,
        "silenced": float((gain_D.abs() < 0.05 * abs(median)).sum()),
        **{name: float(gain_D.quantile(share)) for name, share in QUANTILES.items()},
    }
    if norm.bias_D is not None:
        numbers["bias_std"] = moments(norm.bias_D).std
    return numbers


def top_dimensions(gain_D: Tensor) -> Tensor:
    """The `TOP` dimensions whose gain is farthest from the median."""
    far_D = (gain_D - gain_D.quantile(0.5)).abs()
    return far_D.topk(min(TOP, len(far_D))).indices.sort().values
