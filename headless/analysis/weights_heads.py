"""Each attention head's two circuits: what it looks for (QK) and what it moves (OV)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.finding import Finding, Picture
from headless.analysis.states.families import block_matrices
from headless.analysis.weights_drawing import (
    NULL_DASH,
    bottom_labels,
    depth_alpha,
    legend,
    logarithmic,
    panels_for,
    spectrum_line,
)
from headless.analysis.weights_measure import mean, shuffled
from headless.geometry import rank_law, ranks_of
from headless.pages.figures import INK, drawing_style, series_color

NAME = "head_circuits"
CIRCUITS = ("qk", "ov")
_ABOUT = (
    "A head compares tokens through one product of its matrices, W_Qᵀ W_K (QK), and moves what it "
    "finds through another, W_O W_V (OV). Each is as wide as the model but has no higher rank than "
    "the head's width; its singular values are those of two small factors. With rotary positions "
    "QK is that of two tokens at the same place; norms, gains and biases are left out. The null "
    "multiplies the same matrices with their entries shuffled."
)


@dataclass(frozen=True)
class Circuit:
    """The singular values of one kind in one block: values_HR and those of the null."""

    block: int
    kind: str
    values_HR: Tensor
    shuffled_HR: Tensor


def circuits_of(backbone: nn.Module) -> list[Circuit]:
    """QK and OV of every head of every block; grouped keys and values are used by several heads."""
    config: Any = backbone.config
    heads = config.num_attention_heads
    by_block: dict[int, dict[str, Tensor]] = {}
    for matrix in block_matrices(backbone):
        by_block.setdefault(matrix.block, {})[matrix.role] = matrix.weight
    found = []
    for block, parts in by_block.items():
        null = {role: shuffled(parts[role], seed=i) for i, role in enumerate("qkvo")}
        for kind in CIRCUITS:
            values, random = (_circuit(kind, weights, heads) for weights in (parts, null))
            found.append(Circuit(block, kind, values, random))
    return found


def _circuit(kind: str, parts: dict[str, Tensor], heads: int) -> Tensor:
    """Singular values [heads, head width], descending, by QR of the two factors."""
    first, second = ("q", "k") if kind == "qk" else ("o", "v")
    left = parts[first] if first == "q" else parts[first].T
    width = left.shape[0] // heads
    left_HSD = left.double().reshape(heads, width, -1)
    right_GSD = parts[second].double().reshape(-1, width, parts[second].shape[1])
    right_HSD = right_GSD.repeat_interleave(heads // right_GSD.shape[0], dim=0)
    left_R, right_R = (torch.linalg.qr(x.mT, mode="r").R for x in (left_HSD, right_HSD))
    return torch.linalg.svdvals(left_R @ right_R.mT).cpu()


def circuits_finding(circuits: list[Circuit]) -> Finding:
    """Effective ranks, strongest directions and exponents of QK and OV, head by head."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, float] = {}
    for kind in CIRCUITS:
        own = [c for c in circuits if c.kind == kind]
        ranks = [[ranks_of(values_R) for values_R in c.values_HR] for c in own]
        null = [[ranks_of(values_R) for values_R in c.shuffled_HR] for c in own]
        tables = {
            "effective_rank": [[r.effective / r.full for r in row] for row in ranks],
            "effective_rank_shuffled": [[r.effective / r.full for r in row] for row in null],
            "stable_rank": [[r.stable for r in row] for row in ranks],
            "first_share": [[r.first_share for r in row] for row in ranks],
            "first_share_shuffled": [[r.first_share for r in row] for row in null],
            "rank_exponent": [[rank_law(x).exponent for x in c.values_HR] for c in own],
            "spectral_norm": [[float(x[0]) for x in c.values_HR] for c in own],
        }
        for measure, rows in tables.items():
            arrays[f"{kind}/{measure}"] = np.array(rows, dtype=float)
            scalars[f"{NAME}/{kind}/{measure}"] = mean(arrays[f"{kind}/{measure}"])
    width = circuits[0].values_HR.shape[-1]

    def told(kind: str) -> str:
        used, null = (
            scalars[f"{NAME}/{kind}/{name}"]
            for name in ("effective_rank", "effective_rank_shuffled")
        )
        return f"{kind.upper()} circuits use {used:.2f} of their {width} directions ({null:.2f})"

    return Finding(
        name=NAME,
        title="Circuits of the attention heads",
        about=_ABOUT,
        answer=f"On average {told('qk')}, {told('ov')}; in brackets with entries shuffled.",
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "head-circuits",
                "Left: singular values over the largest one, the mean of each block's heads "
                "(light: early, dark: late; dashed: shuffled). Right: effective rank of each head; "
                "a dash is the null's mean in a block.",
                lambda: draw_circuits(circuits, arrays),
            ),
        ),
    )


def draw_circuits(circuits: list[Circuit], arrays: dict[str, np.ndarray]) -> Any:
    """Four panels: spectra and effective ranks of QK and of OV."""
    depth = 1 + max(c.block for c in circuits)
    titles = ["QK spectra", "QK effective rank", "OV spectra", "OV effective rank"]
    with drawing_style():
        figure, panels = panels_for(titles, height=2.5)
        for index, kind in enumerate(CIRCUITS):
            left, right = panels[2 * index : 2 * index + 2]
            color = series_color(index)
            for c in (c for c in circuits if c.kind == kind):
                curves = [
                    (values / values[:, :1].clamp(min=1e-300)).mean(dim=0)
                    for values in (c.values_HR, c.shuffled_HR)
                ]
                spectrum_line(
                    left, curves[0], color=color, alpha=depth_alpha(c.block, depth), linewidth=1.0
                )
                if c.block == depth // 2:
                    spectrum_line(left, curves[1], color=INK, linestyle=NULL_DASH, linewidth=1.1)
            used_LH = arrays[f"{kind}/effective_rank"]
            null_L = arrays[f"{kind}/effective_rank_shuffled"].mean(axis=1)
            x_LH = np.repeat(np.arange(depth)[:, None], used_LH.shape[1], axis=1)
            right.scatter(x_LH, used_LH, s=9, color=color, alpha=0.6, linewidth=0)
            right.plot(np.arange(depth), null_L, "_", color=INK, markersize=7)
            right.set_ylim(0, 1.02)
            right.set_xlim(-0.6, depth - 0.4)
            right.xaxis.get_major_locator().set_params(integer=True)
            logarithmic([left])
            bottom_labels([left], "rank", "over the largest")
            bottom_labels([right], "block", "share of the width")
        legend(
            figure,
            [
                ("QK", series_color(0), "solid", 2.0),
                ("OV", series_color(1), "solid", 2.0),
                ("entries shuffled", INK, NULL_DASH, 1.1),
            ],
        )
    return figure
