"""How much of the logits is log p(v), and where the stream holds it.

Shapes: V vocabulary, D hidden size, K states, R random directions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth
from headless.analysis.head.lens import (
    SHUFFLES,
    Readout,
    counts_of,
    final_norm,
    head_of,
    readout_of,
    streams,
)
from headless.analysis.record import STREAM, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.objectives.base import log_unigram

MEISTER = "Meister et al. 2023, arXiv 2212.09686"
KOBAYASHI = "Kobayashi et al. 2023, arXiv 2305.18294"
UNCERTAINTY = "Finding the uncertainty vector in GPT-2-scale transformers (LessWrong)"
MEASURES = (
    Measure("r2", "R² of the mean logits on log p", null="r2_shuffled"),
    Measure("slope", "nats of mean logit a nat of log p"),
    Measure("share", "share of the logits' variance along log p", null="share_shuffled"),
    Measure("moment", "share of the second moment on the unigram direction", null="moment_random"),
    Measure("variance", "share of the variance on the unigram direction", null="variance_random"),
    Measure("reach", "R² of log p on the head's rows", null="reach_shuffled"),
    Measure("largest_r2", "R² of the largest dimension's logits on log p"),
)
LAST = ("post", "norm_f")


def _without_bias(finding: Finding) -> bool:
    return not finding.values("slope", "head_bias").size


def _with_unigram_bias(finding: Finding) -> bool:
    return bool((finding.values("r2", "head_bias") >= 0.5).any())


R2, SLOPE = values("r2", *LAST).last, values("slope", *LAST).last


@analysis(
    "unigram",
    title="How much of the logits is log p(v)?",
    about=(
        "A softmax over next tokens must begin from how frequent each token is. Where the head has "
        "no bias for that, the states must carry it. At each place the states are read through the "
        "final norm and the head, without the head's bias; their mean logits are regressed on log "
        "p(v) of the training text, over the tokens that occur there. A slope of 1 with R² 1 is "
        "log p(v) itself. The share is that of the variance of single states' logits over the "
        "tokens which lies along log p. The unigram direction is the vector that, added to a "
        "state, adds most nearly log p(v) to its logits (least squares on the head's rows); the "
        "stream's second moment (variance with its mean) and variance on it stand beside the "
        f"largest of {SHUFFLES} random directions, everything else beside the largest with log p "
        "given to tokens at random. The norm's bias and the head's bias are read in the same way."
    ),
    needs={"text", "counts", "head", "causal"},
    cheap=True,
    figures=(
        by_depth(
            "unigram-by-layer",
            "Log p(v) in the stream, read through the final norm and the head: R² of the mean "
            "logits, share of the logits' variance, and what the unigram direction holds of the "
            "stream. Dashed: log p given to tokens at random, or random directions (null).",
            Panel("mean logits on log p(v)", ("r2", "share"), STREAM, limits=(-0.03, 1.05)),
            Panel("slope", ("slope",), STREAM, "nats a nat", zero=True),
            Panel("on the unigram direction", ("moment", "variance"), STREAM, "share", "y"),
            film=("film-unigram", "Log p(v) in the stream"),
        ),
    ),
    claims=(
        Claim(
            KOBAYASHI,
            "The final norm's bias, read by the head, is a vector of word frequencies",
            (values("r2", "norm_bias").only >= 0.25) & (values("slope", "norm_bias").only > 0),
            asked=lambda finding: bool(finding.values("r2", "norm_bias").size),
        ),
        Claim(
            UNCERTAINTY,
            "Without an output bias the states themselves carry the unigram distribution",
            (R2 >= 0.5) & (SLOPE >= 0.5),
            asked=_without_bias,
        ),
        Claim(
            MEISTER,
            "An output bias of log p(v) disentangles frequency from what the states say",
            R2 < 0.1,
            asked=_with_unigram_bias,
        ),
        Claim(
            UNCERTAINTY,
            "One dimension of the residual stream is the unigram direction",
            values("largest_r2").only >= 0.25,
            asked=lambda finding: bool(finding.values("largest_r2").size),
        ),
        Claim(
            "SmolLM2-135M, measured with this laboratory's definitions",
            "The unigram direction holds more of the last states than any random direction",
            values("moment", *LAST).last > values("moment_random", *LAST).last,
            kind="own",
        ),
    ),
)
def unigram(lab: Session, *, nulls: bool) -> Finding:
    """Through the layers, and of the two biases that can hold log p instead."""
    head, last, norm = head_of(lab), readout_of(lab), final_norm(lab)
    before = last if norm is None else last.behind(norm.gain_D, norm.centred)
    stream = streams(lab)
    numbers: dict[Place, dict[str, float]] = {}
    for place, s in stream.items():
        final = place == list(stream)[-1]
        raw_KD = s.sample_KD.cpu()
        read_KD = raw_KD if final or norm is None else norm.read(raw_KD)
        read_KD = read_KD if head.transform is None else head.transform(read_KD)
        numbers[place] = written(last, read_KD.double())
        direction_D = (last if final else before).direction()
        numbers[place] |= held(raw_KD.double(), direction_D, lab.seed)
    biases = {Place("norm_bias"): None if norm is None or head.transform else norm.bias_D}
    numbers |= {p: of_state(last, x_D) for p, x_D in biases.items() if x_D is not None}
    if head.bias_V is not None:
        numbers[Place("head_bias")] = of_bias(lab, head.bias_V)
    whole = {"reach": last.reach(last.cross_D)}
    whole["reach_shuffled"] = max(last.reach(cross_D) for cross_D in last.chance_DS.T)
    if posts := [s for place, s in stream.items() if place.kind == "post"]:
        largest = posts[-1].sample_KD.double().square().mean(dim=0).argmax()
        axis_D = torch.zeros_like(before.cross_D)
        axis_D[largest] = 1
        whole["largest_r2"] = before.r2(axis_D)
    numbers[Place()] = whole
    return Finding(series_of(numbers, MEASURES)).answered(_answer(numbers, list(stream)[-1]))


def of_state(readout: Readout, state_D: Tensor) -> dict[str, float]:
    """Of one state's logits, or of a constant that all states have."""
    r2, chance = readout.r2(state_D), readout.chance(state_D)
    return {"r2": r2, "r2_shuffled": chance, "slope": readout.slope(state_D)}


def written(readout: Readout, states_KD: Tensor) -> dict[str, float]:
    """What the states write into the logits: their mean, and one by one."""
    second_DD = states_KD.T @ states_KD / len(states_KD)
    chances = [readout.share(second_DD, cross_D) for cross_D in readout.chance_DS.T]
    shares = {"share": readout.share(second_DD), "share_shuffled": max(chances)}
    return of_state(readout, states_KD.mean(dim=0)) | shares


def held(states_KD: Tensor, direction_D: Tensor, seed: int) -> dict[str, float]:
    """Shares of the states' second moment and variance on a direction, and on random ones."""
    draw = torch.Generator().manual_seed(seed)
    random_RD = torch.randn(SHUFFLES, len(direction_D), generator=draw, dtype=torch.float64)
    every = torch.cat([direction_D[None], normalize(random_RD, dim=1)])
    found: dict[str, float] = {}
    for name, x_KD in (("moment", states_KD), ("variance", states_KD - states_KD.mean(dim=0))):
        total = float(x_KD.square().sum())
        shares = (x_KD @ every.T).square().sum(dim=0) / (total or 1.0)
        found |= {name: float(shares[0]), f"{name}_random": float(shares[1:].max())}
    return found


def of_bias(lab: Session, bias_V: Tensor) -> dict[str, float]:
    """Of a number a token, over the tokens that occur."""
    counts_V = counts_of(lab, len(bias_V))
    seen_V = counts_V > 0
    log_p_U = log_unigram(counts_V)[seen_V].double()
    both = [x_U - x_U.mean() for x_U in (bias_V.detach().cpu().double()[seen_V], log_p_U)]
    product, total = float(both[0] @ both[1]), float(both[1].square().sum())
    draw = torch.Generator().manual_seed(lab.seed)
    norms = float(both[0].square().sum()) * total or 1.0
    chance = [
        float(both[0] @ both[1][torch.randperm(len(both[1]), generator=draw)]) ** 2 / norms
        for _ in range(SHUFFLES)
    ]
    return {"r2": product**2 / norms, "r2_shuffled": max(chance), "slope": product / total}


def _answer(numbers: Any, last: Place) -> str:
    at = numbers[last]
    words = (
        f"The last states' mean logits are log p(v) with R² {at['r2']:.2f} and slope "
        f"{at['slope']:.2f}; {at['share']:.0%} of the variance of single states' logits lies along "
        f"it (by chance {at['share_shuffled']:.1%}). The unigram direction holds "
        f"{at['moment']:.1%} of their second moment, a random one at most "
        f"{at['moment_random']:.1%}."
    )
    for kind, name in (("norm_bias", "final norm's"), ("head_bias", "head's")):
        if own := numbers.get(Place(kind)):
            words += f" The {name} bias has R² {own['r2']:.2f} and slope {own['slope']:.2f}."
    return words
