"""The head as a reader of states: its logits, the norm before it, and what its rows say of log p.

The states are those of a part of the text, which is enough for what is said of them: the model
runs over `TOKENS` tokens, once for all analyses of this room. In the cheap preset they are those
that the session has measured.

Shapes: V vocabulary, U tokens that occur, D hidden size, K states, N tokens, S shuffles.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from headless.analysis.record import Place
from headless.analysis.session import STREAM, Session
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point, final_point, points_of, states_at
from headless.analysis.states.families import backbone_of, family_of
from headless.analysis.states.measure import measure, sample_tokens
from headless.analysis.states.reservoirs import by_place
from headless.analysis.weights.sizes import norms_of
from headless.errors import HeadlessError
from headless.objectives import LMHead
from headless.objectives.base import log_unigram

TOKENS = 8192  # of the text, in whole sequences
SHUFFLES = 19  # the largest of 20 is so once in 20 times
LEAST = 50  # tokens that occur
CHECKED, TOLERANCE = 16, 0.02  # tokens on which logits are compared, and relative to the largest
RIDGE = 1e-10  # of the mean eigenvalue


def head_of(lab: Session) -> LMHead:
    """The head that turns last states into logits.

    Raises:
        HeadlessError: the model makes other logits than a matrix with a bias, cosines or a softcap.
    """
    return lab.once("lm_head", lambda: _checked(lab))


def _checked(lab: Session) -> LMHead:
    model = lab.subject.model
    linear = model.get_output_embeddings()
    if not isinstance(head := getattr(linear, "lm_head", None), LMHead):
        softcap = getattr(getattr(model, "config", None), "final_logit_softcapping", None)
        head = LMHead(
            _plain(linear.weight),
            _plain(getattr(linear, "bias", None)),
            partial(nn.functional.normalize, dim=-1)
            if getattr(linear, "normalize", False)
            else None,
            _plain(getattr(linear, "own_excess", None)),
            softcap=getattr(linear, "softcap", None) or softcap,
        )
    if isinstance(model, nn.Module) and hasattr(backbone_of(model), "config"):
        ids_BT = lab.sequences[:1, :CHECKED].to(lab.device)
        last = final_point(points_of(model))
        with torch.no_grad():
            ours = head.logits(states_at(model, ids_BT, [last])[last]).log_softmax(-1)
            theirs = model(input_ids=ids_BT).logits.float().log_softmax(-1)
        if float((ours - theirs).abs().max()) > TOLERANCE * float(theirs.abs().max()):
            raise HeadlessError(
                "the model's logits are more than its last states times a matrix: what its head "
                "asks of them is not known"
            )
    return head


def _plain(weight: Any) -> Any:
    return None if weight is None else weight.detach()


def text_of(lab: Session) -> Tensor:
    """The sequences whose states are looked at, evenly from all of the text."""
    rows_NT = lab.sequences
    if lab.preset == "cheap":
        return rows_NT
    wanted = max(2, TOKENS // rows_NT.shape[1])
    return rows_NT[:: max(1, len(rows_NT) // wanted)][:wanted]


def statistics_of(lab: Session) -> dict[Point, Statistics]:
    """The stream's states, with a reservoir at each point."""
    if lab.preset == "cheap":
        return {p: s for p, s in lab.statistics.items() if p.component in STREAM}
    return lab.once("head_states", lambda: _measured(lab))


def _measured(lab: Session) -> dict[Point, Statistics]:
    blocks = lab.blocks
    points = points_of(lab.subject.model)
    last = final_point(points)
    wanted = [
        p
        for p in points
        if p.component in STREAM
        and (p == last or not lab.last_alone)
        and (blocks is None or p.component != "post" or p.block in blocks or p == last)
    ]
    return measure(
        lab.subject.model,
        text_of(lab).split(8),
        points=wanted,
        covariance=(),
        by_position=(),
        histogram=False,
        spread=False,
    )


@dataclass(frozen=True)
class Reading:
    """Last states [N, D] of tokens that another follows, none of them the first of its text."""

    states_ND: Tensor
    before_N: Tensor
    now_N: Tensor
    next_N: Tensor
    sequences_N: Tensor  #: the row of `text_of`


def reading(lab: Session, most: int) -> Reading:
    """Of at most so many tokens, evenly from the reservoir of what the head reads."""
    whole = lab.once("head_reading", lambda: _read(lab))
    number = len(whole.next_N)
    chosen = torch.linspace(0, number - 1, min(most, number)).round().long()
    return Reading(*(getattr(whole, field.name)[chosen] for field in fields(Reading)))


def _read(lab: Session) -> Reading:
    statistics = statistics_of(lab)
    s = statistics[final_point(statistics)]
    batches = text_of(lab).split(8)
    before_K, now_K, next_K = (sample_tokens(s, batches, offset) for offset in (-1, 0, 1))
    known_K = next_K >= 0
    if not bool(known_K.any()):
        raise HeadlessError("no token follows another one: give sequences of three or more")
    before_N, now_N, next_N = (tokens_K[known_K] for tokens_K in (before_K, now_K, next_K))
    sequences_N = s.sample_sequences_K[known_K]
    return Reading(s.sample_KD[known_K], before_N, now_N, next_N, sequences_N)


@dataclass(frozen=True)
class Readout:
    """The rows [U, D] of a head for the tokens that occur, in what log p(v) needs of them.

    Everything that a regression over tokens of state · row on log p asks for, whatever the state:
    both less their mean over the tokens.
    """

    gram_DD: Tensor  #: of the rows
    cross_D: Tensor  #: of the rows with log p
    chance_DS: Tensor  #: of the rows with log p given to the tokens at random
    spread: float  #: sum of squares of log p

    def behind(self, gain_D: Tensor, centred: bool) -> "Readout":
        """Of what a norm's output is before its gain, up to a length: rows · gain."""

        def inside(x: Tensor) -> Tensor:  # rows of width D
            x = x * gain_D
            return x - x.mean(dim=-1, keepdim=True) if centred else x

        gram_DD = inside(inside(self.gram_DD).T)
        return Readout(gram_DD, inside(self.cross_D), inside(self.chance_DS.T).T, self.spread)

    def r2(self, state_D: Tensor, cross_D: Tensor | None = None) -> float:
        """Of the state's logits on log p."""
        cross_D = self.cross_D if cross_D is None else cross_D
        total = float(state_D @ self.gram_DD @ state_D) * self.spread
        return float(cross_D @ state_D) ** 2 / total if total > 0 else 0.0

    def chance(self, state_D: Tensor) -> float:
        """The largest R² with log p given to the tokens at random."""
        return max(self.r2(state_D, cross_D) for cross_D in self.chance_DS.T)

    def slope(self, state_D: Tensor) -> float:
        """Nats of logit a nat of log p: 1 where the state writes log p(v) as it is."""
        return float(self.cross_D @ state_D) / self.spread

    def share(self, second_DD: Tensor, cross_D: Tensor | None = None) -> float:
        """Of the variance of logits over tokens, pooled over states with these second moments."""
        cross_D = self.cross_D if cross_D is None else cross_D
        total = float((self.gram_DD * second_DD).sum()) * self.spread
        return float(cross_D @ second_DD @ cross_D) / total if total > 0 else 0.0

    def direction(self) -> Tensor:
        """[D] of length 1: what added to a state adds most nearly log p to its logits."""
        return nn.functional.normalize(self._solve(self.cross_D), dim=0)

    def reach(self, cross_D: Tensor) -> float:
        """R² of log p on the rows: how well a state could write it."""
        return float(cross_D @ self._solve(cross_D)) / self.spread

    def _solve(self, cross_D: Tensor) -> Tensor:
        return torch.linalg.solve(ridged(self.gram_DD), cross_D)


def ridged(gram_DD: Tensor) -> Tensor:
    """A Gram matrix that can be solved with: its directions of no length get a little."""
    floor = RIDGE * gram_DD.trace() / len(gram_DD)
    floor = floor.clamp(min=torch.finfo(gram_DD.dtype).tiny)
    return gram_DD + floor * torch.eye(len(gram_DD), dtype=gram_DD.dtype, device=gram_DD.device)


def counts_of(lab: Session, rows: int) -> Tensor:
    """Of every row of a table with so many: padded tables have more than there are tokens."""
    assert lab.subject.counts_V is not None
    counts_V = lab.subject.counts_V.cpu().long()
    if rows < len(counts_V):
        raise HeadlessError(
            f"{len(counts_V)} counts for a table of {rows} rows: count the text with the model's "
            "own tokenizer"
        )
    if int((counts_V > 0).sum()) < LEAST:
        raise HeadlessError(f"fewer than {LEAST} tokens occur in the text: take a longer one")
    return nn.functional.pad(counts_V, (0, rows - len(counts_V)))


def readout_of(lab: Session) -> Readout:
    """Of the session's head and the counts of its training text."""
    return lab.once("head_readout", lambda: _readout(lab))


def _readout(lab: Session) -> Readout:
    weight_VD = head_of(lab).weight_VD
    counts_V = counts_of(lab, len(weight_VD))
    seen_U = (counts_V > 0).nonzero().flatten()
    log_p_U = log_unigram(counts_V)[seen_U].double()
    log_p_U = log_p_U - log_p_U.mean()
    rows_UD = weight_VD[seen_U.to(weight_VD.device)].double().cpu()
    rows_UD = rows_UD - rows_UD.mean(dim=0)
    draw = torch.Generator().manual_seed(lab.seed)
    order_SU = torch.stack([torch.randperm(len(seen_U), generator=draw) for _ in range(SHUFFLES)])
    return Readout(
        rows_UD.T @ rows_UD,
        rows_UD.T @ log_p_U,
        rows_UD.T @ log_p_U[order_SU].T,
        float(log_p_U.square().sum()),
    )


@dataclass(frozen=True)
class FinalNorm:
    """The norm between the stream and the head: its gain, bias, and whether it centres."""

    read: Callable[[Tensor], Tensor]
    gain_D: Tensor
    bias_D: Tensor | None
    centred: bool


def final_norm(lab: Session) -> FinalNorm | None:
    """Of the families that have one after the last block."""
    backbone = lab.subject.weights
    name = family_of(backbone).final_norm
    if not name:
        return None
    norm = next((n for n in norms_of(backbone) if n.place == Place("final")), None)
    module = copy.deepcopy(backbone.get_submodule(name)).to("cpu", torch.float32)
    width = int(backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
    gain_D = torch.ones(width, dtype=torch.float64) if norm is None else norm.gain_D

    def read(states_KD: Tensor) -> Tensor:
        with torch.no_grad():
            return module(states_KD.to("cpu", torch.float32))

    return FinalNorm(
        read, gain_D, None if norm is None else norm.bias_D, isinstance(module, nn.LayerNorm)
    )


def streams(lab: Session) -> dict[Place, Statistics]:
    """The stream by its places, what the head reads last."""
    statistics = statistics_of(lab)
    last = final_point(statistics)
    if final_norm(lab) is None:
        statistics = {last: statistics[last]}
    return by_place(statistics)
