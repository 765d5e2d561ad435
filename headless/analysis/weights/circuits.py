"""Each attention head's two circuits: what it looks for (QK) and what it moves (OV)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank
from headless.analysis.record import Finding, Place, Spectrum, mean, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.families import block_matrices
from headless.analysis.weights.matrices import beside_shuffled, paired, rank_numbers, shuffled

CIRCUITS = ("qk", "ov")
PAIRED = ("effective_rank", "first_share")
LEFT_OUT = ("rank_r_squared", "knee", "participation_ratio")


@analysis(
    "weights",
    name="head_circuits",
    title="Circuits of the attention heads",
    about=(
        "A head compares tokens through one product of its matrices, W_Qᵀ W_K (QK), and moves what "
        "it finds through another, W_O W_V (OV). Each is as wide as the model but has no higher "
        "rank than the head's width; its singular values are those of two small factors. With "
        "rotary positions QK is that of two tokens at the same place; norms, gains and biases are "
        "left out. The null multiplies the same matrices with their entries shuffled."
    ),
    figures=(
        by_rank(
            "head-circuits",
            "Singular values over the largest one, the mean of each block's heads (light: early, "
            "dark: late); dashed: a middle block's with entries shuffled.",
            Ranks("_spectra/{place}", y="over the largest"),
        ),
        by_depth(
            "head-circuit-ranks",
            "Effective rank as a share of the width: each head (dots), a block's mean, and with "
            "entries shuffled (dashed).",
            Panel(
                "effective rank, share of the width",
                ("effective_rank",),
                limits=(0, 1.02),
                dots="{place}/effective_rank",
            ),
            wide=False,
        ),
    ),
)
def circuits(lab: Session, *, nulls: bool) -> Finding:
    """Effective ranks, strongest directions and exponents of QK and OV, head by head."""
    heads = circuits_of(lab.subject.weights)
    measured = {place: _numbers(*pair) for place, pair in heads.items()}
    by_head: dict[str, dict[Place, Any]] = {
        f"{{place}}/{measure}": {
            Place(kind): np.stack([n[measure] for p, n in measured.items() if p.kind == kind])
            for kind in CIRCUITS
        }
        for measure in next(iter(measured.values()))
    }
    means = {
        place: {measure: mean(values_H) for measure, values_H in numbers.items()}
        for place, numbers in measured.items()
    }
    spectra = {place: Spectrum(*map(_relative, pair)) for place, pair in heads.items()}
    finding = Finding(
        series_of(means, paired(*PAIRED), per_kind=True), {**by_head, "_spectra/{place}": spectra}
    )
    width = next(iter(heads.values()))[0].shape[-1]
    used = [
        f"{kind.upper()} circuits use {mean(finding.values('effective_rank', kind)):.2f} of their "
        f"{width} directions ({mean(finding.values('effective_rank_shuffled', kind)):.2f})"
        for kind in CIRCUITS
    ]
    return finding.answered(f"On average {used[0]}, {used[1]}; in brackets with entries shuffled.")


def circuits_of(backbone: nn.Module) -> dict[Place, tuple[Tensor, Tensor]]:
    """Singular values [heads, head width] of each block's QK and OV, and those of the null.

    Grouped keys and values are used by several heads.
    """
    config: Any = backbone.config
    by_block: dict[int, dict[str, Tensor]] = {}
    for matrix in block_matrices(backbone):
        by_block.setdefault(matrix.block, {})[matrix.role] = matrix.weight
    circuits = {}
    for block, parts in by_block.items():
        null = {role: shuffled(parts[role], seed=i) for i, role in enumerate("qkvo")}
        for kind in CIRCUITS:
            own, random = (_circuit(kind, w, config.num_attention_heads) for w in (parts, null))
            circuits[Place(kind, block)] = own, random
    return circuits


def _relative(values_HR: Tensor) -> np.ndarray:
    """Mean over the heads [R] of singular values over each head's largest."""
    return (values_HR / values_HR[:, :1].clamp(min=1e-300)).mean(dim=0).numpy()


def _circuit(kind: str, parts: dict[str, Tensor], heads: int) -> Tensor:
    """By QR of the two factors."""
    first, second = ("q", "k") if kind == "qk" else ("o", "v")
    left = parts[first] if first == "q" else parts[first].T
    width = left.shape[0] // heads
    left_HSD = left.double().reshape(heads, width, -1)
    right_GSD = parts[second].double().reshape(-1, width, parts[second].shape[1])
    right_HSD = right_GSD.repeat_interleave(heads // right_GSD.shape[0], dim=0)
    left_R, right_R = (torch.linalg.qr(x.mT, mode="r").R for x in (left_HSD, right_HSD))
    return torch.linalg.svdvals(left_R @ right_R.mT).cpu()


def _numbers(values_HR: Tensor, shuffled_HR: Tensor) -> dict[str, np.ndarray]:
    """Every measure, of each head [H]."""
    heads = [
        beside_shuffled(rank_numbers(own_R), rank_numbers(null_R), *PAIRED)
        for own_R, null_R in zip(values_HR, shuffled_HR, strict=True)
    ]
    return {
        measure: np.array([numbers[measure] for numbers in heads])
        for measure in heads[0]
        if measure not in LEFT_OUT
    }
