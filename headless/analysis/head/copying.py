"""What comes again: does the model continue a sequence that it has read before?

Shapes: S sequences, H tokens of a half, T positions, V vocabulary, N tokens.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.head.lens import counts_of, head_of, text_of
from headless.analysis.record import Finding, Measure, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.capture import final_point, points_of, states_at
from headless.errors import HeadlessError
from headless.models.logits import rows_at_a_time
from headless.objectives import LMHead

SEQUENCES, HALF, LEAST = 32, 32, 8  # random ones, tokens of a half at the most and at the least
OLSSON = "Olsson et al. 2022, arXiv 2209.11895"
MEASURES = (
    Measure("nll_new", "nats a token, second half of new tokens"),
    Measure("nll_reordered", "… of the first half's in another order"),
    Measure("nll_repeated", "… of the first half again"),
    Measure("recurrence", "nats that having come before is worth"),
    Measure("induction", "nats that the same order is worth", null="induction_chance"),
    Measure("nll_again", "nats of the text's pairs that come again", null="nll_first"),
    Measure("nll_others", "… of the text's other tokens"),
    Measure("again", "share of the text's tokens that end such a pair"),
)
INDUCTION = values("induction").only


@analysis(
    "copying",
    title="Does it continue what it has read before?",
    about=(
        "Induction heads find where the present token came before, and predict what followed it "
        "there. Random sequences show them, where nothing else predicts anything: their tokens are "
        "drawn as they are frequent in the training text, each once, and the second half is the "
        "first one again, the first one in another order, or new. What the order is worth is "
        "induction (null: the difference between two other orders); what another order is worth "
        "over new tokens is that the tokens came before at all. In the text itself, what does the "
        "second token of a pair cost where the same pair came before in the sequence? The null is "
        "what it cost there, the first time."
    ),
    needs={"text", "counts", "head", "causal"},
    states="none",
    figures=(
        by_rank(
            "copying-by-position",
            "Nats of random tokens by position in the second half, which is the first one again. "
            "Dashed: its tokens in another order (null); dotted: new tokens.",
            Ranks("_nats", "position", "nats", "", null="in another order", start="new tokens"),
            wide=False,
        ),
    ),
    claims=(
        Claim(
            OLSSON,
            "A random sequence that comes again is copied: half of its nats or more are gone",
            INDUCTION >= 0.5 * values("nll_reordered").only,
        ),
        Claim(
            "A criterion of this project",
            "It has begun to copy: the same order is worth a tenth of a nat, and more than chance",
            (INDUCTION >= 0.1) & (INDUCTION > values("induction_chance").only),
            kind="own",
        ),
    ),
)
def copying(lab: Session, *, nulls: bool) -> Finding:
    """Of random sequences and of the text."""
    head = head_of(lab)
    halves = second_halves(lab, len(head.weight_VD))
    first_SH = halves.pop("first")
    begin_SH = first_SH
    if lab.subject.bos is not None:
        begin_SH = F.pad(first_SH, (1, 0), value=lab.subject.bos)
    nats_H = {}
    for name, second_SH in halves.items():
        nats_ST = nats(lab, head, torch.cat([begin_SH, second_SH], dim=1))
        # Of the second half, without its first token, which no order leads to.
        nats_H[name] = nats_ST[:, 1 - second_SH.shape[1] :].mean(dim=0).numpy()
    nll = {name: float(x_H.mean()) for name, x_H in nats_H.items()}
    numbers = {f"nll_{name}": nll[name] for name in ("new", "reordered", "repeated")}
    numbers["recurrence"] = nll["new"] - nll["reordered"]
    numbers["induction"] = nll["reordered"] - nll["repeated"]
    numbers["induction_chance"] = abs(nll["reordered"] - nll["reordered_again"])
    numbers |= of_text(lab, head)
    curve = Spectrum(nats_H["repeated"], nats_H["reordered"], nats_H["new"])
    payloads: dict[str, dict[Place, Any]] = {"_nats": {Place(): curve}}
    answer = (
        f"A random sequence that comes again costs {numbers['nll_repeated']:.2f} nats a token, in "
        f"another order {numbers['nll_reordered']:.2f}: the order is worth "
        f"{numbers['induction']:+.2f} (by chance {numbers['induction_chance']:.2f}), having come "
        f"before {numbers['recurrence']:+.2f}."
    )
    if "nll_again" in numbers:
        answer += (
            f" The text's pairs that come again ({numbers['again']:.0%} of its tokens end one) "
            f"cost {numbers['nll_again']:.2f} nats, {numbers['nll_first']:.2f} the first time."
        )
    return Finding(series_of({Place(): numbers}, MEASURES), payloads).answered(answer)


def second_halves(lab: Session, vocab: int) -> dict[str, Tensor]:
    """Token ids [S, H]: first halves, and what may follow them.

    Other orders leave the first token where it is, which is not counted: all of them cost a model
    without a context the same.

    Raises:
        HeadlessError: the sequences or the vocabulary are too small.
    """
    counts_V = counts_of(lab, vocab)
    seen_U = (counts_V > 0).nonzero().flatten()
    half = min(HALF, (lab.sequences.shape[1] - 1) // 2, len(seen_U) // 2)
    if half < LEAST:
        raise HeadlessError(
            f"sequences of {2 * LEAST + 1} tokens and as many that occur are needed"
        )
    draw = torch.Generator().manual_seed(lab.seed)
    # Drawn without replacement the rarer ones come later: a random order mixes them again.
    often_SU = counts_V[seen_U].double().expand(SEQUENCES, -1)
    drawn_SP = seen_U[torch.multinomial(often_SU, 2 * half, generator=draw)]

    def mixed(ids_SP: Tensor) -> Tensor:
        return ids_SP.gather(1, torch.rand(ids_SP.shape, generator=draw).argsort(dim=1))

    first_SH, new_SH = mixed(drawn_SP).split(half, dim=1)
    others = (torch.cat([first_SH[:, :1], mixed(first_SH[:, 1:])], dim=1) for _ in range(2))
    return {
        "first": first_SH,
        "new": new_SH,
        **dict(zip(("reordered", "reordered_again"), others, strict=True)),
        "repeated": first_SH,
    }


@torch.no_grad()
def nats(lab: Session, head: LMHead, ids_ST: Tensor) -> Tensor:
    """What each token but the first costs [S, T - 1]."""
    last = final_point(points_of(lab.subject.backbone))
    costs = []
    for ids_BT in ids_ST.split(8):
        states_BTD = states_at(lab.subject.backbone, ids_BT.to(lab.device), [last])[last]
        states_ND = states_BTD[:, :-1].flatten(0, 1).to(head.weight_VD.device)
        next_N = ids_BT[:, 1:].flatten().to(states_ND.device)
        rows = rows_at_a_time(len(head.weight_VD))
        for part_ND, next_C in zip(states_ND.split(rows), next_N.split(rows), strict=True):
            costs.append(F.cross_entropy(head.logits(part_ND), next_C, reduction="none").cpu())
    return torch.cat(costs).view(len(ids_ST), -1).double()


def of_text(lab: Session, head: LMHead) -> dict[str, float]:
    """Pairs of the text that come again: what they cost, and cost when they came first."""
    ids_ST = text_of(lab)
    nats_ST = nats(lab, head, ids_ST)
    again, before = torch.zeros_like(nats_ST, dtype=torch.bool), torch.zeros_like(nats_ST)
    for row, ids_T in enumerate(ids_ST.tolist()):
        firsts: dict[tuple[int, int], int] = {}
        for t, pair in enumerate(itertools.pairwise(ids_T)):
            first = firsts.setdefault(pair, t)
            again[row, t], before[row, t] = first < t, nats_ST[row, first]
    means = {"nll_again": nats_ST[again], "nll_first": before[again], "nll_others": nats_ST[~again]}
    numbers = {name: float(x_N.mean()) for name, x_N in means.items() if len(x_N)}
    return numbers | {"again": float(again.double().mean())}
