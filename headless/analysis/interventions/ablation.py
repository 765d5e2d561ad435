"""What outlier dimensions are for: the loss without them, against other dimensions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.record import Finding, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.capture import Point, evaluating
from headless.analysis.states.families import backbone_of, family_of
from headless.errors import HeadlessError
from headless.models.backbone import blocks as blocks_of
from headless.models.backbone import embedding_table
from headless.models.logits import logits_at, rows_at_a_time

COUNTS = (1, 2, 5, 10)  # dimensions; those above half of the width are left out
DRAWS = 19  # random sets of the count that is asked about: the largest of 20 is so once in 20 times
RANGE_DRAWS = 3  # of the other counts, whose range is drawn
MASKED = 0.15  # share of the tokens that are hidden from a masked model
SHORT = (4, 128)  # sequences and tokens of each for what runs the model dozens of times


@analysis(
    "ablation",
    name="outlier_ablation",
    title="What are outlier dimensions for?",
    about=(
        "After one block the largest dimensions of the residual stream are set to zero, or to "
        "their mean over tokens, and the model goes on. Does the loss grow much more than for as "
        "many other dimensions drawn at random (the null)? Zero takes away what a dimension "
        f"always adds; the mean leaves that. For the largest number of dimensions {DRAWS} sets are "
        f"drawn, and p is the share of all sets that cost as much; for the others {RANGE_DRAWS} "
        "show a range, which tests nothing."
    ),
    needs={"text", "loss"},
    figures=(
        by_rank(
            "outlier-ablation",
            "How much the loss grows when the largest dimensions are set to zero or to their mean, "
            "and for random dimensions set to zero (null).",
            Ranks(
                "_costs",
                "dimensions taken out",
                "nats added to the loss",
                log="x",
                null="random dimensions",
                start="the costliest random ones",
            ),
        ),
    ),
    claims=(
        Claim(
            CONJECTURE,
            "zeroing outlier dimensions has a large differential impact on the loss",
            (values("zero").last.formed(".3f") > 0.1)
            & (values("zero").last > 3 * values("random").last)
            & (values("random_p").only <= 0.05),
        ),
    ),
)
def outlier_ablation(lab: Session, *, nulls: bool) -> Finding:
    """After the middle one of the measured blocks: the k largest against k others."""
    measured = sorted(point.block for point in lab.statistics if point.component == "post")
    if not measured:
        raise HeadlessError("no block was measured: measure the stream after one first")
    block = measured[len(measured) // 2]
    s = lab.statistics[Point("post", block)]
    rms_D, mean_D = moments.rms(s), moments.mean(s)
    order_D = rms_D.argsort(descending=True)
    counts = [k for k in COUNTS if k <= len(rms_D) // 2]
    generator = torch.Generator().manual_seed(lab.seed)
    model, ids_BT = lab.subject.model, short(lab)

    def loss(dims_K: Tensor, values_K: Tensor) -> float:
        with replaced(model, block, dims_K, values_K):
            return nll(model, ids_BT, mask_token=lab.subject.mask_token, seed=lab.seed)

    before = loss(order_D[:0], mean_D[:0])
    numbers: dict[Place, dict[str, float]] = {Place(): {"block": float(block), "nll": before}}
    for k in counts:
        dims_K, zeros_K, others = order_D[:k], torch.zeros(k, dtype=torch.float64), order_D[k:]
        costs = []
        for _ in range(DRAWS if k == counts[-1] else RANGE_DRAWS):
            chosen_K = others[torch.randperm(len(others), generator=generator)[:k]]
            costs.append(loss(chosen_K, zeros_K) - before)
        numbers[Place(str(k))] = {
            "zero": loss(dims_K, zeros_K) - before,
            "mean": loss(dims_K, mean_D[dims_K]) - before,
            "random": float(np.mean(costs)),
            "random_largest": max(costs),
        }
    last = numbers[Place(str(counts[-1]))]
    last["random_p"] = (sum(cost >= last["zero"] for cost in costs) + 1) / (DRAWS + 1)
    finding = Finding(series_of(numbers))
    random, largest = finding.values("random"), finding.values("random_largest")
    costs_of = {
        Place(words): Spectrum(finding.values(name), random, largest, at=np.array(counts))
        for words, name in (("set to zero", "zero"), ("set to their mean", "mean"))
    }
    return Finding(finding.series, {"_costs": costs_of}).answered(
        f"Without the {counts[-1]} largest dimensions after block {block} the loss of {before:.3f} "
        f"nats grows by {last['zero']:.3f} (zero) or {last['mean']:.3f} (mean); without random "
        f"ones by {last['random']:.3f} on average ({DRAWS} draws, p {last['random_p']:.2f})."
    )


def short(lab: Session) -> Tensor:
    """The beginnings of a few sequences from all over the text [B, T]."""
    number, length = SHORT
    every = max(1, len(lab.sequences) // number)
    return lab.sequences[::every][:number, :length].to(lab.device)


@contextmanager
def replaced(model: nn.Module, block: int, dims_K: Tensor, values_K: Tensor) -> Iterator[None]:
    """Inside this, dimensions of the stream after a block have fixed values at every position."""
    backbone = backbone_of(model)
    family = family_of(backbone)
    layer = blocks_of(backbone)[block]
    if family.post_norm and family.norm2:
        layer = layer.get_submodule(family.norm2)

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        state = (output[0] if isinstance(output, tuple) else output).clone()
        state[..., dims_K.to(state.device)] = values_K.to(state.device, state.dtype)
        return (state, *output[1:]) if isinstance(output, tuple) else state

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def nll(model: nn.Module, ids_BT: Tensor, *, mask_token: int | None = None, seed: int = 0) -> float:
    """`token_loss` without gradients."""
    with evaluating(model), torch.no_grad():
        return float(token_loss(model, ids_BT, mask_token=mask_token, seed=seed))


def token_loss(
    model: nn.Module, ids_BT: Tensor, *, mask_token: int | None = None, seed: int = 0
) -> Tensor:
    """Mean loss in nats a token: of the next one, or of the 15 % that a `mask_token` hides.

    Where the vocabulary is large, of as many tokens, evenly spaced, as `rows_at_a_time` allows.
    """
    input_BT = labels_BT = ids_BT
    if mask_token is not None:
        generator = torch.Generator().manual_seed(seed)
        hidden_BT = (torch.rand(ids_BT.shape, generator=generator) < MASKED).to(ids_BT.device)
        hidden_BT[:, min(1, ids_BT.shape[1] - 1)] = True
        input_BT = ids_BT.masked_fill(hidden_BT, mask_token)
        labels_BT = ids_BT.masked_fill(~hidden_BT, -100)
    if mask_token is None:  # the last token of a row predicts nothing
        labels_BT = nn.functional.pad(ids_BT[:, 1:], (0, 1), value=-100)
    places = (labels_BT != -100).nonzero()
    if not len(places):
        raise HeadlessError("no token to predict: give sequences of at least two tokens")
    rows = rows_at_a_time(len(embedding_table(backbone_of(model))))
    if rows < len(places):
        places = places[torch.linspace(0, len(places) - 1, rows, device=places.device).long()]
    chosen_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    chosen_BT[tuple(places.T)] = True
    logits_MV = logits_at(model, input_BT, chosen_BT).float()
    return nn.functional.cross_entropy(logits_MV, labels_BT[chosen_BT])
