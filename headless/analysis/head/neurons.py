"""Neurons that serve the softmax: for log p(v), and for how sure the model is.

Shapes: V vocabulary, D hidden size, F neurons of an MLP, N tokens, K neurons of a set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth, cloud
from headless.analysis.head.lens import Readout, counts_of, final_norm, head_of, readout_of
from headless.analysis.interventions.ablation import short
from headless.analysis.record import Cloud, Finding, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.capture import Point, states_at
from headless.analysis.states.families import block_matrices
from headless.errors import HeadlessError
from headless.models.backbone import blocks as blocks_of
from headless.models.logits import rows_at_a_time
from headless.objectives import LMHead
from headless.objectives.base import log_unigram

NORM = 0.95  # quantile of a block's norms from which on a neuron's is high
SET = 10  # neurons that are taken out, a twentieth of the block's at the most
DRAWS = 19  # random sets
TOKENS = 256  # on which they are taken out
PASSES = 1e-3  # relative error with which an MLP's output is its neurons times their vectors
STOLFO = "Stolfo et al. 2024, arXiv 2406.16254"
KINDS = ("token_frequency", "entropy")
EFFECTS = ("loss", "entropy", "unigram")
MEASURES = (
    Measure("token_frequency", "token-frequency neurons", null="token_frequency_random"),
    Measure("entropy", "entropy neurons", null="entropy_random"),
    Measure("loss_change", "nats of loss that taking them out adds", null="loss_change_random"),
    Measure("entropy_change", "nats of entropy that it adds", null="entropy_change_random"),
    Measure(
        "unigram_change", "nats of divergence from p(v) that it adds", null="unigram_change_random"
    ),
)
COUNTED = 5  # neurons beyond the most extreme of as many random ones: so by chance once in 32


def _claim(kind: str, effect: str, text: str) -> Claim:
    p = values(f"{effect}_change_p", f"{kind}_set").only
    return Claim(STOLFO, text, (values(kind, "mlp").last >= COUNTED) & (p <= 0.05))


@analysis(
    "neurons",
    title="Token-frequency and entropy neurons",
    about=(
        "A neuron of an MLP adds its output vector to the stream, and so a pattern to the logits. "
        "As criteria, with the final norm's gain in the head: a token-frequency neuron's pattern "
        "has a correlation with log p(v), of either sign, above that of as many random directions, "
        "all of them. An entropy neuron has an output vector among the longest 5 % of its block, "
        "and its cosines with the head's rows vary less than those of as many random directions: "
        "it writes where the head hardly reads, and changes the logits through the final norm's "
        f"scale. Of the last block the {SET} clearest of each kind are held at their mean over "
        f"{TOKENS} tokens, beside {DRAWS} sets of as many others: what happens to the loss, to the "
        "entropy of the predictions, and to their divergence from the unigram distribution? p is "
        "the share of all sets whose change is as large, of either sign."
    ),
    needs={"text", "counts", "head", "causal", "parts"},
    states="none",
    figures=(
        cloud(
            "neurons-last-block",
            "Neurons of the last block: length of the output vector, and variance of its cosines "
            "with the head's rows; colour: correlation of its logits with log p(v). Line: the "
            "least varying of as many random directions.",
            "_neurons",
            color="|correlation with log p(v)|",
            log="y",
        ),
        by_depth(
            "neurons-by-layer",
            "How many there are; dashed: among as many random directions (null).",
            Panel("", KINDS, ("mlp",), "neurons"),
            wide=False,
        ),
    ),
    claims=(
        _claim(
            "token_frequency",
            "unigram",
            "Token-frequency neurons shift predictions towards the unigram distribution, or away",
        ),
        _claim(
            "entropy",
            "entropy",
            "Entropy neurons write to the head's near-null space and set how sure the model is",
        ),
    ),
)  # fmt: skip
def neurons(lab: Session, *, nulls: bool) -> Finding:
    """Counts in every block, effects in the last."""
    head, norm = head_of(lab), final_norm(lab)
    if norm is None or head.transform is not None:
        raise HeadlessError("there is no norm between the neurons and the head's matrix")
    before = readout_of(lab).behind(norm.gain_D, norm.centred)
    spread_DD = cosines(head, norm.gain_D)
    draw = torch.Generator().manual_seed(lab.seed)
    numbers: dict[Place, dict[str, float]] = {}
    last: Patterns | None = None
    for matrix in block_matrices(lab.subject.weights):
        if matrix.role == "down":
            vectors_DF = matrix.weight.detach().double().cpu()
            last = Patterns.of(vectors_DF, before, spread_DD)
            random = [
                Patterns.of(torch.randn(vectors_DF.shape, generator=draw).double(), before,
                            spread_DD)
                for _ in range(2)
            ]  # fmt: skip
            numbers[Place("mlp", matrix.block)] = counted(last, *random)
    assert last is not None
    cases = Cases.of(lab, head, norm.read)
    sets = {"token_frequency_set": last.clearest_for_frequency(),
            "entropy_set": last.clearest_for_entropy()}  # fmt: skip
    numbers |= effects(cases, sets, draw)
    cut = float(random[0].variance_F.min())
    length = float(last.norm_F.min()), float(last.norm_F.max())
    points = Cloud(
        torch.stack([last.norm_F, last.variance_F], dim=1).numpy(),
        last.correlation_F.abs().numpy(),
        ("length", "variance of cosines"),
        (torch.tensor([[length[0], cut], [length[1], cut]]).numpy(),),
    )
    return Finding(series_of(numbers, MEASURES), {"_neurons": {Place(): points}}).answered(
        _answer(numbers, len(next(iter(sets.values()))))
    )


def cosines(head: LMHead, gain_D: Tensor) -> Tensor:
    """The covariance [D, D] of the head's rows of length 1, the norm's gain in them."""
    rows_VD = normalize(head.weight_VD.double().cpu() * gain_D, dim=1)
    mean_D = rows_VD.mean(dim=0)
    return rows_VD.T @ rows_VD / len(rows_VD) - torch.outer(mean_D, mean_D)


@dataclass(frozen=True)
class Patterns:
    """What output vectors do to the logits, each [F]."""

    norm_F: Tensor
    variance_F: Tensor  #: of the cosines with the head's rows
    correlation_F: Tensor  #: of the logits with log p(v)

    @classmethod
    def of(cls, vectors_DF: Tensor, readout: Readout, spread_DD: Tensor) -> "Patterns":
        square_F = vectors_DF.square().sum(dim=0).clamp(min=1e-300)
        total_F = (vectors_DF * (readout.gram_DD @ vectors_DF)).sum(dim=0) * readout.spread
        return cls(
            square_F.sqrt(),
            (vectors_DF * (spread_DD @ vectors_DF)).sum(dim=0).clamp(min=0) / square_F,
            readout.cross_D @ vectors_DF / total_F.clamp(min=1e-300).sqrt(),
        )

    def long(self) -> Tensor:
        """Which are among the longest [F]."""
        return self.norm_F >= self.norm_F.quantile(NORM)

    @property
    def size(self) -> int:
        return max(1, min(SET, len(self.norm_F) // 20))

    def clearest_for_frequency(self) -> Tensor:
        return self.correlation_F.abs().topk(self.size).indices

    def clearest_for_entropy(self) -> Tensor:
        variance_F = self.variance_F.masked_fill(~self.long(), torch.inf)
        return variance_F.topk(self.size, largest=False).indices


def counted(own: Patterns, random: Patterns, other: Patterns) -> dict[str, float]:
    """How many are beyond all of one set of random directions, and of another such set."""
    most, least = random.correlation_F.abs().max(), random.variance_F.min()
    share = float(own.long().double().mean())
    return {
        "token_frequency": float((own.correlation_F.abs() > most).sum()),
        "token_frequency_random": float((other.correlation_F.abs() > most).sum()),
        "entropy": float((own.long() & (own.variance_F < least)).sum()),
        "entropy_random": share * float((other.variance_F < least).sum()),
    }


@dataclass(frozen=True)
class Cases:
    """Tokens [N] with the last block's neurons and output, and how both become predictions."""

    hidden_NF: Tensor
    stream_ND: Tensor
    next_N: Tensor
    vectors_DF: Tensor
    read: Callable[[Tensor], Tensor]
    log_p_V: Tensor

    @classmethod
    def of(cls, lab: Session, head: LMHead, norm: Callable[[Tensor], Tensor]) -> "Cases":
        """Without first tokens, which are of another kind."""
        model, ids_BT = lab.subject.model, short(lab)
        block = len(blocks_of(lab.subject.backbone)) - 1
        points = [Point(part, block) for part in ("hidden", "mlp", "post")]
        hidden_BTF, mlp_BTD, stream_BTD = states_at(model, ids_BT, points).values()
        (vectors_DF,) = (
            m.weight.detach()
            for m in block_matrices(lab.subject.weights)
            if m.role == "down" and m.block == block
        )
        made_BTD = hidden_BTF @ vectors_DF.T
        off_BTD = (mlp_BTD - mlp_BTD.mean(dim=(0, 1))) - (made_BTD - made_BTD.mean(dim=(0, 1)))
        if float(off_BTD.norm()) > PASSES * float(mlp_BTD.norm()):
            raise HeadlessError(
                "what an MLP adds is not the sum of its neurons' vectors: a norm follows it"
            )
        inside = slice(1, ids_BT.shape[1] - 1)
        parts = [x[:, inside].flatten(0, 1) for x in (hidden_BTF, stream_BTD)]
        next_N = ids_BT[:, 2:].flatten()
        if not len(next_N):
            raise HeadlessError("no token follows another one: give sequences of three or more")
        most = min(TOKENS, len(next_N), rows_at_a_time(len(head.weight_VD)))
        taken = torch.linspace(0, len(next_N) - 1, most).round().long()
        taken = taken.to(next_N.device)

        def read(stream_ND: Tensor) -> Tensor:
            states_ND = norm(stream_ND).to(head.weight_VD.device)
            return head.logits(states_ND).log_softmax(dim=-1)

        log_p_V = log_unigram(counts_of(lab, len(head.weight_VD))).to(head.weight_VD.device)
        hidden_NF, stream_ND = (x[taken] for x in parts)
        return cls(hidden_NF, stream_ND, next_N[taken], vectors_DF, read, log_p_V)

    @torch.no_grad()
    def without(self, neurons_K: Tensor) -> dict[str, float]:
        """Loss, entropy and divergence from p(v) with some neurons held at their mean."""
        hidden_NK = self.hidden_NF[:, neurons_K]
        change_ND = (hidden_NK.mean(dim=0) - hidden_NK) @ self.vectors_DF[:, neurons_K].T
        log_NV = self.read(self.stream_ND + change_ND)
        p_NV = log_NV.exp()
        entropy = -float((p_NV * log_NV).sum(dim=1).mean())
        loss = -float(log_NV.gather(1, self.next_N[:, None].to(log_NV.device)).mean())
        return {
            "loss": loss,
            "entropy": entropy,
            "unigram": -entropy - float((p_NV @ self.log_p_V).mean()),
        }


def effects(
    cases: Cases, sets: dict[str, Tensor], draw: torch.Generator
) -> dict[Place, dict[str, float]]:
    """What holding each set at its mean changes, beside random sets of the block's others."""
    nobody = torch.zeros(0, dtype=torch.long)
    before = cases.without(nobody)

    def change(neurons_K: Tensor) -> dict[str, float]:
        after = cases.without(neurons_K)
        return {name: after[name] - before[name] for name in EFFECTS}

    every = set(range(cases.hidden_NF.shape[1]))
    others = torch.tensor(sorted(every.difference(*(s.tolist() for s in sets.values()))))
    size = len(next(iter(sets.values())))
    random = [
        change(others[torch.randperm(len(others), generator=draw)[:size]]) for _ in range(DRAWS)
    ]
    numbers: dict[Place, dict[str, float]] = {Place(): {"nll": before["loss"]}}
    for kind, chosen_K in sets.items():
        own = change(chosen_K)
        of_kind: dict[str, float] = {}
        for effect in EFFECTS:
            sizes = [abs(other[effect]) for other in random]
            as_large = sum(x >= abs(own[effect]) for x in sizes)
            of_kind |= {
                f"{effect}_change": own[effect],
                f"{effect}_change_random": max(sizes),
                f"{effect}_change_p": (as_large + 1) / (DRAWS + 1),
            }
        numbers[Place(kind)] = of_kind
    return numbers


def _answer(numbers: Any, size: int) -> str:
    last = [n for place, n in numbers.items() if place.kind == "mlp"][-1]
    words = (
        f"The last block has {last['token_frequency']:.0f} token-frequency neurons "
        f"({last['token_frequency_random']:.0f} of as many random directions) and "
        f"{last['entropy']:.0f} entropy neurons (by chance {last['entropy_random']:.2f})."
    )
    for kind in KINDS:
        own = numbers[Place(f"{kind}_set")]
        words += (
            f" Holding the {size} clearest {kind.replace('_', '-')} ones at their mean adds "
            f"{own['loss_change']:+.3f} nats of loss, {own['entropy_change']:+.3f} of entropy "
            f"(random sets: at most {own['entropy_change_random']:.3f}) and "
            f"{own['unigram_change']:+.3f} of divergence from p(v) (at most "
            f"{own['unigram_change_random']:.3f})."
        )
    return words
