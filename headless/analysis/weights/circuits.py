"""Each attention head's two circuits: what it looks for (QK) and what it moves (OV)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.drawing.by_rank import draw_ranks
from headless.analysis.drawing.grid import DASHED, depth_bar, depth_colors, legend, log_axes
from headless.analysis.record import Figure, Finding, Measure, Place, mean, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.states.families import block_matrices
from headless.analysis.weights.matrices import shuffled
from headless.geometry import rank_law, ranks_of
from headless.pages.figures import INK, MUTED, drawing_style, new_figure

CIRCUITS = ("qk", "ov")
MEASURES = (
    Measure("effective_rank", null="effective_rank_shuffled"),
    Measure("first_share", null="first_share_shuffled"),
)


def _draw(finding: Finding) -> Any:
    spectra = finding.payloads["_spectra/{place}"]
    depth = len(finding.values("effective_rank", "qk"))
    colors = depth_colors(depth)
    with drawing_style():
        figure = new_figure(11.2, 5.4)
        panels = figure.subplots(2, 2)
        for (left, right), kind in zip(panels, CIRCUITS, strict=True):
            for block in range(depth):
                own, null = np.asarray(spectra[Place(kind, block)])
                draw_ranks(left, own, color=colors[block], lw=1.0)
                if block == depth // 2:
                    draw_ranks(left, null, color=INK, ls=DASHED, lw=1.1)
            log_axes(left, "xy")
            used_LH = finding.arrays[f"{kind}/effective_rank"]
            x_LH = np.repeat(np.arange(depth)[:, None], used_LH.shape[1], axis=1)
            right.scatter(x_LH, used_LH, s=9, color=MUTED, alpha=0.7, linewidth=0)
            null_L = finding.values("effective_rank_shuffled", kind)
            right.plot(np.arange(depth), null_L, "_", color=INK, markersize=7)
            right.set(ylim=(0, 1.02), xlabel="block", ylabel="share of the width")
            right.xaxis.get_major_locator().set_params(integer=True)
            left.set(title=f"{kind.upper()} spectra", xlabel="rank", ylabel="over the largest")
            right.set_title(f"{kind.upper()} effective rank")
        if depth > 1:
            depth_bar(figure, panels, range(depth))
        legend(figure, [("entries shuffled", INK, DASHED)])
    return figure


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
        Figure(
            "head-circuits",
            "Left: singular values over the largest one, the mean of each block's heads (light: "
            "early, dark: late; dashed: shuffled). Right: effective rank of each head; a dash is "
            "the null's mean in a block.",
            _draw,
        ),
    ),
)
def circuits(lab: Session, *, nulls: bool) -> Finding:
    """Effective ranks, strongest directions and exponents of QK and OV, head by head."""
    heads = circuits_of(lab.subject.weights)
    measured = {place: _numbers(*pair) for place, pair in heads.items()}
    by_head = {
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
    spectra = {
        place: np.stack([(x / x[:, :1].clamp(min=1e-300)).mean(dim=0).numpy() for x in pair])
        for place, pair in heads.items()
    }
    finding = Finding(
        series_of(means, MEASURES, per_kind=True), {**by_head, "_spectra/{place}": spectra}
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
    found = {}
    for kind in CIRCUITS:
        for block, parts in by_block.items():
            null = {role: shuffled(parts[role], seed=i) for i, role in enumerate("qkvo")}
            own, random = (_circuit(kind, w, config.num_attention_heads) for w in (parts, null))
            found[Place(kind, block)] = own, random
    return found


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
    own, null = ([ranks_of(values_R) for values_R in x] for x in (values_HR, shuffled_HR))
    columns: dict[str, list[float]] = {
        "effective_rank": [r.effective / r.full for r in own],
        "effective_rank_shuffled": [r.effective / r.full for r in null],
        "stable_rank": [r.stable for r in own],
        "first_share": [r.first_share for r in own],
        "first_share_shuffled": [r.first_share for r in null],
        "rank_exponent": [rank_law(values_R).exponent for values_R in values_HR],
        "spectral_norm": [float(values_R[0]) for values_R in values_HR],
    }
    return {measure: np.array(column) for measure, column in columns.items()}
