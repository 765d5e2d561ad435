"""The same token again and again: what a model does where nothing new comes.

Shapes: S sequences, T positions, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Number, values
from headless.analysis.drawing import Ranks, by_rank
from headless.analysis.record import Finding, Place, Spectrum, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import PAPER
from headless.analysis.states.capture import Point, middle_blocks, states_at
from headless.analysis.states.families import backbone_of
from headless.errors import HeadlessError
from headless.geometry import unit
from headless.models.backbone import blocks

SHORTEST = 16
TOKENS = 3  # the most frequent ones are repeated
LLAMA = f"{PAPER}, first version (LLaMA-7B)"
CURVES = {"norm": "norm", "cos_last": "cosine with the last", "step": "relative step"}


def _ratio(words: str, over: str) -> Number:
    def get(finding: Finding) -> float:
        return float(finding.values("norm_last")[0]) / max(float(finding.values(over)[0]), 1e-300)

    return Number(words, get)


HALF, BACK = values("cos_half_last").only, values("cos_first_last").only


@analysis(
    "repeated",
    title="A token repeated",
    about=(
        "A sequence of one token, again and again, has nothing but position to tell its states "
        "apart. Does the direction of the mean state after the middle blocks settle, does its norm "
        "grow to that of the first position, which many models give a huge norm of no meaning? A "
        "sequence of random tokens stands beside it."
    ),
    needs={"text"},
    states="none",
    figures=(
        by_rank(
            "repeated-curves",
            "By position: norm, cosine with the last state, and relative step, a line a token.",
            Ranks("_curves", "position, from 1", "", log="x", null="random tokens", bar="token"),
        ),
    ),
    claims=(
        Claim(
            LLAMA,
            "States of a repeated token converge",
            (HALF >= 0.95) & (HALF > values("cos_half_last/null").only),
        ),
        Claim(
            LLAMA,
            "In the end they look like the first position's: of its norm and its direction",
            (
                (_ratio("last norm over first", "norm_first") >= 0.5)
                & (_ratio("last norm over the second's", "norm_second") >= 3)
                & (BACK >= 0.8)
            ).given(
                values("norm_first").only >= 3 * values("norm_second").only,
                "the first position's norm is not 3 times the second's: nothing to be captured by",
            ),
        ),
    ),
)
def repeated(lab: Session, *, nulls: bool) -> Finding:
    """The text's most frequent tokens, each repeated, beside a sequence of random ones."""
    ids, counts = lab.sequences.flatten().unique(return_counts=True)
    frequent = ids[counts.argsort(descending=True)][:TOKENS].tolist()
    length = int(lab.sequences.shape[1])
    state_STD, norm_ST = middle_states(lab.subject.backbone, sequences_of(frequent, length, lab))
    direction_STD = torch.stack([unit(x_TD) for x_TD in state_STD])
    cos_ST = (direction_STD * direction_STD[:, -1:]).sum(dim=-1)
    step_ST = state_STD.diff(dim=1).norm(dim=-1) / state_STD[:, 1:].norm(dim=-1).clamp(min=1e-300)
    at = {"first": 0, "second": 1, "tenth": max(2, length // 10), "half": length // 2, "last": -1}
    n = {f"norm_{name}": float(norm_ST[0, t]) for name, t in at.items() if name != "half"}
    n |= {f"cos_{name}_last": float(cos_ST[0, t]) for name, t in at.items() if name != "last"}
    n |= {f"cos_{name}_last/null": float(cos_ST[-1, at[name]]) for name in ("half", "first")}
    n |= {"step_second": float(step_ST[0, 0]), "step_last": float(step_ST[0, -1])}
    n |= {"step_last/null": float(step_ST[-1, -1]), "norm_last/null": float(norm_ST[-1, -1])}
    arrays = {"norm": norm_ST.numpy(), "cos_last": cos_ST.numpy(), "step": step_ST.numpy()}
    payloads: dict[str, dict[Place, Any]] = {k: {Place(): x_ST} for k, x_ST in arrays.items()}
    payloads["_curves"] = {
        Place(CURVES[key], s): Spectrum(
            x_ST[s], null=x_ST[-1], at=np.arange(length)[-x_ST.shape[1] :] + 1
        )
        for key, x_ST in arrays.items()
        for s in range(len(frequent))
    }
    return Finding(series_of({Place(): n}), payloads).answered(
        f"Half-way the state points where the last one points (cosine {n['cos_half_last']:.3f}; "
        f"{n['cos_half_last/null']:.3f} for random tokens) and a step moves it by "
        f"{n['step_last']:.1%} at the end ({n['step_last/null']:.0%} for random tokens). Its norm "
        f"goes from {n['norm_second']:.3g} to {n['norm_last']:.3g} (first position: "
        f"{n['norm_first']:.3g})."
    )


def sequences_of(tokens: Sequence[int], length: int, lab: Session) -> Tensor:
    """A sequence for each token, then one of random tokens [S, T]; each begins with any BOS."""
    if length < SHORTEST:
        raise HeadlessError(f"sequences of {length} tokens: {SHORTEST} or more are needed")
    config: Any = lab.subject.backbone.config
    generator = torch.Generator().manual_seed(lab.seed)
    random_T = torch.randint(config.vocab_size, (length,), generator=generator)
    ids_ST = torch.stack([*(torch.full((length,), t) for t in tokens), random_T])
    if lab.subject.bos is not None:
        ids_ST[:, 0] = lab.subject.bos
    return ids_ST


def middle_states(backbone: nn.Module, ids_ST: Tensor) -> tuple[Tensor, Tensor]:
    """Mean states after the middle blocks [S, T, D] and mean norms [S, T]; float64 on the CPU."""
    points = [Point("post", i) for i in middle_blocks(range(len(blocks(backbone_of(backbone)))))]
    means, norms = [], []
    for ids_T in ids_ST:  # one by one: several long ones need much memory
        states = states_at(backbone, ids_T[None], points).values()
        x_LTD = torch.stack([x_BTD[0].double().cpu() for x_BTD in states])
        means.append(x_LTD.mean(dim=0))
        norms.append(x_LTD.norm(dim=-1).mean(dim=0))
    return torch.stack(means), torch.stack(norms)
