"""Gains and biases of the norms: which dimensions each block amplifies or silences."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, share
from headless.analysis.drawing import Panel, by_depth, density
from headless.analysis.record import Finding, Measure, Place, Sample, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states.families import family_of
from headless.analysis.weights.matrices import SEED, middle_block
from headless.geometry import moments
from headless.models.backbone import blocks

TOP = 5
BINS = 60
QUANTILES = {"_smallest": 0.0, "_low": 0.05, "_median": 0.5, "_high": 0.95, "_largest": 1.0}
LINES = ("mean", "_smallest", "_low", "_high", "_largest")
INNER = ("norm1", "norm2")
MEASURES = (
    Measure("_low", "5 %"),
    Measure("_high", "95 %"),
    Measure("excess_kurtosis", null="_chance"),
)


def _has_inner(finding: Finding) -> bool:
    return len(finding.values("mean", *INNER)) > 0


CLAIMS = (
    Claim(
        CONJECTURE,
        "Gains in the blocks are well below 1 (0.45 in the middle of GPT-2-medium).",
        share("norms of a mean gain of at most 0.8:", lambda mean: mean <= 0.8, "_learnt") >= 0.8,
        asked=_has_inner,
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
        asked=_has_inner,
    ),
    Claim(
        CONJECTURE,
        "The outlying gains are mostly on the left, towards 0.",
        share("norms of negative skew:", lambda learnt, skew: skew < 0, "_learnt", "skew") >= 0.5,
        asked=_has_inner,
    ),
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
        "After a norm has made a state's dimensions comparable, its gain multiplies each of them: "
        "the block reads a dimension with a gain near 0 hardly at all (counted as silenced below "
        "5 % of the median) and one with a large gain above all. Gains begin at 1, biases at 0. "
        "Skew and excess kurtosis say whether a few dimensions stand out, on which side; both are "
        "0 for a Gaussian of the same mean and variance, the null. The Jaccard overlap of the "
        "largest five dimensions of neighbouring blocks (by |gain| from the median) says whether "
        "they are the same everywhere; by chance it is 5/(2·width) or so."
    ),
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
        density(
            "norm-gain-values",
            "Gains of a middle block and of the final norm, with a Gaussian sample of the same "
            "mean and variance (filled).",
            "_gains/{place}",
            x="gain",
            y="dimensions",
            null="a Gaussian sample of the same mean and variance",
        ),
    ),
    claims=CLAIMS,
)
def gains(lab: Session, *, nulls: bool) -> Finding | None:
    """Distribution of gains and biases by block; None for a model whose norms have none."""
    norms = norms_of(lab.subject.weights)
    if not norms:
        return None
    numbers = {norm.place: _numbers(norm) for norm in norms}
    inner = [numbers[norm.place] for norm in norms if norm.place.kind in INNER]
    learnt = any(abs(n["mean"] - 1) >= 1e-6 or np.isfinite(n["excess_kurtosis"]) for n in inner)
    for norm, following in zip(norms, [*norms[1:], None], strict=True):
        gain = numbers[norm.place]
        gain["_learnt"] = gain["mean"] if learnt and norm.place.kind in INNER else float("nan")
        if following is not None and following.place.kind == norm.place.kind:
            gain["overlap"] = _jaccard(norm, following)
    finding = Finding(series_of(numbers, MEASURES, per_kind=True), _payloads(norms))
    return finding.answered(
        f"Mean gains are {finding.by_kind('mean')}. Silenced dimensions: "
        f"{finding.values('silenced').sum():.0f}."
    )


def norms_of(backbone: nn.Module) -> list[Norm]:
    """Both norms of every block and the final one, where they have gains."""
    family = family_of(backbone)
    places = [
        (Place(kind, i), block.get_submodule(getattr(family, kind)))
        for kind in INNER
        for i, block in enumerate(blocks(backbone))
    ]
    if family.final_norm is not None:
        places.append((Place("final"), backbone.get_submodule(family.final_norm)))
    norms = []
    for place, norm in places:
        gain, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if isinstance(gain, Tensor):
            bias = bias.detach().double().cpu() if isinstance(bias, Tensor) else None
            norms.append(Norm(place, gain.detach().double().cpu(), bias))
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
        **{name: float(np.quantile(gain_D.numpy(), share)) for name, share in QUANTILES.items()},
    }
    if norm.bias_D is not None:
        bias = moments(norm.bias_D)
        numbers |= {"bias_std": bias.std, "bias_excess_kurtosis": bias.excess_kurtosis}
    return numbers


def _payloads(norms: list[Norm]) -> dict[str, dict[Place, Any]]:
    """Every gain, and histograms of a middle block's and of the final one's."""
    payloads: dict[str, dict[Place, Any]] = defaultdict(dict)
    for kind in dict.fromkeys(norm.place.kind for norm in norms):
        gains_D = [norm.gain_D for norm in norms if norm.place.kind == kind]
        payloads["{place}/gain"][Place(kind)] = torch.stack(gains_D).numpy()
        payloads["{place}/top"][Place(kind)] = np.stack([top_dimensions(x_D) for x_D in gains_D])
    middle = middle_block([norm.place for norm in norms])
    draw = torch.Generator().manual_seed(SEED)
    for norm in (norm for norm in norms if norm.place.block in (middle, None)):
        gain, noise = norm.gain_D.numpy(), None
        counts, edges = np.histogram(gain, BINS)
        if gain.std() > 0:
            normal = torch.randn(len(gain), generator=draw, dtype=torch.float64).numpy()
            noise, _ = np.histogram(gain.mean() + gain.std() * normal, edges)
        payloads["_gains/{place}"][norm.place] = Sample(edges, counts, noise)
    return payloads


def top_dimensions(gain_D: Tensor) -> Tensor:
    """The `TOP` dimensions whose gain is farthest from the median."""
    far_D = (gain_D - gain_D.quantile(0.5)).abs()
    return far_D.topk(min(TOP, len(far_D))).indices.sort().values


def _jaccard(first: Norm, second: Norm) -> float:
    a, b = (set(top_dimensions(norm.gain_D).tolist()) for norm in (first, second))
    return len(a & b) / len(a | b)
