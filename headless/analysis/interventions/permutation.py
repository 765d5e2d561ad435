"""A model with its blocks in another order: does what an analysis shows need the order?

Shapes: B sequences, T positions, N states.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Values, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.interventions.ablation import nll, short
from headless.analysis.record import Finding, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.capture import points_of, states_at
from headless.analysis.states.families import backbone_of
from headless.errors import HeadlessError
from headless.geometry import unit
from headless.models.backbone import blocks

SWAPS = 8  # pairs of neighbours that are exchanged at the most, evenly over the depth
RANDOM = ("random_1", "random_2", "random_3")


def _cosines(first: int, last: int | None, words: str) -> Values:
    """Of exchanges from the first pair on."""

    def get(finding: Finding) -> np.ndarray:
        kinds = [kind for kind in finding.series["cosine"].kinds if kind.startswith("swap")]
        return finding.values("cosine", *kinds[first:last]) if kinds[first:last] else np.zeros(0)

    return Values(get, lambda finding: words)


EVERY = _cosines(0, None, "cosine of exchanges")
INNER = _cosines(1, -1, "cosine of exchanges but the first and last")
LEAST_AT = EVERY.reduced("depth of the least", lambda x: x.argmin() / max(len(x) - 1, 1))


@analysis(
    "permutation",
    title="Blocks in another order",
    about=(
        "What stays the same with the blocks in another order does not show what the model "
        "computes. Here the blocks run in reverse, in three random orders, and with pairs of "
        "neighbours exchanged. The cosine compares each last state with that of the model as it is "
        "(1: nothing changed); random orders are the null model for exchanges of neighbours."
    ),
    needs={"text"},
    states="none",
    figures=(
        by_rank(
            "permutation-swaps",
            "Neighbouring blocks exchanged: cosine with the original last states and, with a head, "
            "change of the loss; dashed and dotted: random orders.",
            Ranks(
                "_swaps",
                "first of the two blocks",
                "",
                log="",
                null="random orders, largest",
                start="random orders, smallest",
            ),
        ),
    ),
    claims=(
        Claim(
            "Lad et al. 2024 (arXiv 2406.19384)",
            "Exchanging neighbouring blocks hurts little in the middle, most at the ends",
            (
                ((LEAST_AT <= 0) | (LEAST_AT >= 1))
                & (INNER.smallest > values("cosine", *RANDOM).largest)
            ).given(EVERY.count >= 3, "fewer than four blocks"),
        ),
    ),
)
def permutation(lab: Session, *, nulls: bool) -> Finding:
    """What other orders of the blocks do to the last states and the loss."""
    model = getattr(lab.subject.model, "_orig_mod", lab.subject.model)
    depth = len(blocks(backbone_of(model)))
    if depth < 2:
        raise HeadlessError("other orders need two blocks or more")
    places, with_loss = list(range(depth)), not lab.subject.no_loss
    pairs = np.unique(np.linspace(0, depth - 2, min(SWAPS, depth - 1)).round().astype(int)).tolist()
    orders = {"identity": places, "reverse": places[::-1]}
    orders |= {name: random_order(depth, lab.seed + i) for i, name in enumerate(RANDOM)}
    orders |= {f"swap_{i}": [*places[:i], i + 1, i, *places[i + 2 :]] for i in pairs}
    ids_BT, numbers, losses = short(lab), {}, {}
    for name, order in orders.items():
        with reordered(model, order):
            last_ND = _last_states(model, ids_BT)
            if name == "identity":
                original_ND = last_ND
            numbers[Place(name)] = {"cosine": float((last_ND * original_ND).sum(dim=1).mean())}
            if with_loss:
                mask = lab.subject.mask_token
                losses[name] = nll(model, ids_BT, mask_token=mask, seed=lab.seed)
                change = losses[name] - losses["identity"]
                numbers[Place(name)]["loss_change"] = change
    if with_loss:
        numbers[Place()] = {"loss": losses["identity"]}
    finding = Finding(series_of(numbers))
    swaps, at = tuple(f"swap_{i}" for i in pairs), np.array(pairs)
    cosine, random = finding.values("cosine", *swaps), finding.values("cosine", *RANDOM)
    most, least = (np.full(len(at), x) for x in (random.max(), random.min()))
    drawn = {Place("cosine with the original"): Spectrum(cosine, most, least, at)}
    worst, cost = pairs[int(cosine.argmin())], ""
    if with_loss:
        loss = finding.values("loss_change", *swaps)
        drawn[Place("change of the loss, nats")] = Spectrum(loss, at=at)
        worst, cost = pairs[int(loss.argmax())], f", which costs {loss.max():.2f} nats per token"
    return Finding(finding.series, {"_swaps": drawn}).answered(
        f"Two neighbouring blocks exchanged leave a cosine of {cosine.mean():.2f} with the "
        f"original last states on average, random orders {random.mean():.2f}. The exchange that "
        f"matters most is {worst}↔{worst + 1}{cost}."
    )


def random_order(depth: int, seed: int) -> list[int]:
    """Never the blocks' own one; of two blocks or more."""
    generator = torch.Generator().manual_seed(seed)
    drawn = list(range(depth))
    while drawn == sorted(drawn):
        drawn = torch.randperm(depth, generator=generator).tolist()
    return drawn


@contextmanager
def reordered(model: nn.Module, order: Sequence[int]) -> Iterator[None]:
    """Inside this, the i-th of `order` of a model's blocks is at its i-th place."""
    modules, ordered = backbone_of(model).modules(), blocks(backbone_of(model))
    holder = next(m for m in modules if isinstance(m, nn.ModuleList) and list(m) == ordered)
    try:
        for place, index in enumerate(order):
            holder[place] = ordered[index]
        yield
    finally:
        for place, block in enumerate(ordered):
            holder[place] = block


def _last_states(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """As unit vectors [N, D], without those of position 0."""
    last = [p for p in points_of(model) if p.component in ("post", "norm_f")][-1]
    return unit(states_at(model, ids_BT, [last])[last][:, 1:].flatten(0, 1).cpu())
