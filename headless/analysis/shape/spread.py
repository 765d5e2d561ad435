"""Over how many directions activations are spread: spectra of their covariances, by point."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.accumulators import REST, Statistics
from headless.analysis.states.reservoirs import by_place
from headless.geometry import MarchenkoPastur, rank_law, ranks_of

FIRST_RANK, LAST_SHARE = 10, 0.7  # the law is fitted to ranks 10 to 0.7·D
PARTS = ("post", "mid", "attn", "mlp")
MEASURES = (
    Measure("exponent", null="exponent_noise"),
    Measure("r_squared", "R² of the fit over blocks"),
    Measure("_grown", "share of the eigenvalues that is smaller than in the next block"),
    Measure("_states", "number of states over that of dimensions"),
)

CLAIMS = (
    Claim(
        CONJECTURE,
        "the covariance of the residual stream has a power-law spectrum",
        (values("r_squared", "post").median.formed(".3f") >= 0.98).given(
            values("_states", "post").smallest > 2, "fewer than 2·D states: cannot be asked"
        ),
    ),
    Claim(
        CONJECTURE,
        "the spectra increase with the layer",
        values("_grown").mean.formed(".0%") >= 0.8,
    ),
)


@analysis(
    "covariance",
    name="covariance_spectra",
    title="How are activations spread over directions?",
    about=(
        "The states at a point form a cloud; the eigenvalues of its covariance say how far it "
        "extends along each of its own axes. A power law, a straight line on two logarithmic "
        "axes, means that there is no scale at which the cloud ends. The null is the same cloud "
        "with its dimensions made independent: its eigenvalues are the variances of the single "
        "dimensions. Because a few dimensions of large variance own the first eigenvalues, the "
        "spectrum of the correlations stands beside it; there the null is flat at 1. Positions "
        "0 are left out. IsoScore is (participation ratio − 1) / (D − 1)."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        by_rank(
            "covariance-spectra",
            "Eigenvalues of the covariance by rank, one line a block from light (first) to dark "
            "(last). Dashed: the middle block with its dimensions made independent (null).",
            Ranks(
                "{place}/eigenvalues",
                y="eigenvalue",
                at=("post", "attn", "mlp"),
                null="dimensions made independent",
            ),
        ),
        by_depth(
            "covariance-exponents",
            "Exponent of the eigenvalues' power law, and the participation ratio (how many "
            "directions the cloud fills), of covariances and of correlations.",
            *(
                Panel(f"{words} of {which}", (name + end,), PARTS, log=log)
                for which, end in (("covariances", ""), ("correlations", "/correlation"))
                for name, words, log in (
                    ("exponent", "exponent", ""),
                    ("participation", "participation ratio", "y"),
                )
            ),
        ),
    ),
    claims=CLAIMS,
)
def covariance_spectra(lab: Session, *, nulls: bool) -> Finding:
    """Eigenvalues, their power law and effective ranks at every point with a covariance."""
    measured = {p: s for p, s in by_place(lab.statistics).items() if s.outer_DD is not None}
    spectra_D = {p: torch.from_numpy(moments.eigenvalues(s).copy()) for p, s in measured.items()}
    null_D = {p: moments.variance(s).sort(descending=True).values for p, s in measured.items()}
    numbers = {place: spread_of(values_D) for place, values_D in spectra_D.items()}
    posts = [place for place in measured if place.kind == "post"]
    width = len(spectra_D[posts[0]])
    for place, following in zip(posts, posts[1:], strict=False):
        grown_D = spectra_D[following] > spectra_D[place]
        numbers[place]["_grown"] = float(grown_D.double().mean())
    for place in posts:
        numbers[place]["_states"] = float(measured[place].count_G[REST]) / width
    payloads: dict[str, dict[Place, Any]] = {
        "{place}/eigenvalues": {
            p: Spectrum(x.numpy(), null=null_D[p].numpy()) for p, x in spectra_D.items()
        }
    }
    if nulls:
        for place, s in measured.items():
            states = int(s.count_G[REST])
            numbers[place]["exponent_noise"] = exponent_of_noise(states, len(spectra_D[place]))
        correlated_D = {place: correlation_eigenvalues(s) for place, s in measured.items()}
        for place, values_D in correlated_D.items():
            spread = spread_of(values_D)
            for name in ("exponent", "participation"):
                numbers[place][f"{name}/correlation"] = spread[name]
        payloads["{place}/null"] = {place: x_D.numpy() for place, x_D in null_D.items()}
        payloads["{place}/correlation"] = {p: x_D.numpy() for p, x_D in correlated_D.items()}
    finding = Finding(series_of(numbers, MEASURES), payloads)
    exponent, r_squared, rank = (
        finding.values(name, "post") for name in ("exponent", "r_squared", "participation")
    )
    return finding.answered(
        f"After the blocks the eigenvalues fall as rank to the power −{exponent.min():.2f} to "
        f"−{exponent.max():.2f} (R² at least {r_squared.min():.3f}). The states fill "
        f"{rank.min():.1f} to {rank.max():.1f} of {width} directions (participation ratio)."
    )


def spread_of(values_D: Tensor) -> dict[str, float]:
    """The numbers of a cloud from its covariance's eigenvalues; the law is fitted from rank 10, or
    from the tenth part of a narrow model, on."""
    law = rank_law(values_D, min(FIRST_RANK / len(values_D), 0.1), LAST_SHARE)
    ranks = ranks_of(values_D.sqrt())
    return {
        "exponent": law.exponent,
        "r_squared": law.r_squared,
        "participation": ranks.participation,
        "entropy_rank": ranks.entropy,
        "first_share": ranks.first_share,
        "variance": float(values_D.sum()),
    }


@cache
def exponent_of_noise(states: int, width: int) -> float:
    """The exponent, fitted in the same way, of as many states drawn from a Gaussian; NaN for fewer
    than three."""
    if states < 3:
        return math.nan
    # The mean takes one state.
    values_R = MarchenkoPastur.of((states - 1, width), 1.0).expected().square()
    return spread_of(values_R)["exponent"]


def correlation_eigenvalues(s: Statistics) -> Tensor:
    """Descending; dimensions that do not vary are left out."""
    covariance_DD = moments.covariance(s)
    std_D = covariance_DD.diagonal().clamp(min=0).sqrt()
    alive_D = std_D > 1e-12 * std_D.max()
    scale_D = std_D[alive_D]
    correlation_DD = covariance_DD[alive_D][:, alive_D] / torch.outer(scale_D, scale_D)
    return torch.linalg.eigvalsh(correlation_DD).clamp(min=0).flip(0)
