"""How far training moved each matrix, and whether the movement has directions."""

from collections.abc import Sequence
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
    lines_by_depth,
    logarithmic,
    new_figure,
    panels_for,
    role_color,
    role_legend,
    spectrum_line,
)
from headless.analysis.weights_measure import (
    by_role,
    in_words,
    joined,
    matching,
    mean,
    null_spectrum,
    role_arrays,
    role_means,
    roles_in,
)
from headless.geometry import rank_law, ranks_of, singular_spectrum
from headless.pages.figures import INK, drawing_style

NAME = "weight_movement"
_ABOUT = (
    "The difference between a matrix now and before training. Its norm relative to the beginning's "
    "says how far the matrix went (0: not at all; 1: as far as it was from zero), the cosine "
    "between the two whether it still points the same way. The singular values of the difference "
    "say whether training moved a few directions or all of them; the null is the same difference "
    "with its entries shuffled, which moves all of them."
)


@dataclass(frozen=True)
class Movement:
    """One matrix's way: W_t - W_0, with the singular values of it and of its null, descending."""

    block: int
    role: str
    distance: float
    cosine: float
    values_R: Tensor
    shuffled_R: Tensor


def movements_of(
    backbone: nn.Module, initial: nn.Module, *, spectra: bool = True
) -> list[Movement]:
    """Of every matrix of every block.

    Args:
        backbone: after training.
        initial: the same backbone before it.
        spectra: decompose the differences, too; else both are empty.

    Raises:
        HeadlessError: another family, or other matrices.
    """
    matrices = block_matrices(backbone)
    found = []
    for matrix, start in zip(matrices, matching(matrices, initial), strict=True):
        now, before = matrix.weight.double(), start.weight.double().to(matrix.weight.device)
        change = now - before
        norms = torch.linalg.matrix_norm(torch.stack([now, before, change]))
        found.append(
            Movement(
                block=matrix.block,
                role=matrix.role,
                distance=float(norms[2] / norms[1]),
                cosine=float((now * before).sum() / norms[0] / norms[1]),
                values_R=singular_spectrum(change).cpu() if spectra else torch.empty(0),
                shuffled_R=null_spectrum(change) if spectra else torch.empty(0),
            )
        )
    return found


def way_tables(movements: Sequence[Movement]) -> dict[str, dict[str, np.ndarray]]:
    """How far, and still in which direction, by role, over the blocks [L]."""
    return {
        "distance": by_role(movements, lambda m: m.distance),
        "cosine": by_role(movements, lambda m: m.cosine),
    }


def movement_finding(movements: Sequence[Movement]) -> Finding:
    """Distance, cosine and spectrum of each matrix's difference from its beginning."""
    tables = way_tables(movements) | {
        "effective_rank": by_role(
            movements, lambda m: ranks_of(m.values_R).effective / len(m.values_R)
        ),
        "effective_rank_shuffled": by_role(
            movements, lambda m: ranks_of(m.shuffled_R).effective / len(m.values_R)
        ),
        "stable_rank": by_role(movements, lambda m: ranks_of(m.values_R).stable),
        "first_share": by_role(movements, lambda m: ranks_of(m.values_R).first_share),
        "rank_exponent": by_role(movements, lambda m: rank_law(m.values_R).exponent),
    }
    arrays = role_arrays(tables)
    arrays |= {f"spectrum/{m.role}/{m.block:02d}": m.values_R.numpy() for m in movements}
    return Finding(
        name=NAME,
        title="Movement of the weights since the beginning",
        about=_ABOUT,
        answer=(
            f"Relative distances are {in_words(tables['distance'])}, cosines with the beginning "
            f"{in_words(tables['cosine'])}. The difference uses "
            f"{mean(joined(tables['effective_rank'])):.2f} of its rank (shuffled: "
            f"{mean(joined(tables['effective_rank_shuffled'])):.2f})."
        ),
        scalars=role_means(NAME, tables),
        arrays=arrays,
        pictures=(
            Picture(
                "weight-movement",
                "Distance from the beginning relative to its norm, and the difference's effective "
                "rank (dashed: entries shuffled), by block.",
                lambda: draw_movement(tables),
            ),
            Picture(
                "weight-movement-spectra",
                "Singular values of the difference, one line a block (light: early, dark: late); "
                "dashed: a middle block's with its entries shuffled.",
                lambda: draw_spectra(movements),
            ),
        ),
    )


def draw_movement(tables: dict[str, dict[str, np.ndarray]]) -> Any:
    """Two panels over depth."""
    with drawing_style():
        figure = new_figure(11.2, 3.0)
        left, right = figure.subplots(1, 2)
        lines_by_depth(left, tables["distance"])
        lines_by_depth(right, tables["effective_rank"])
        lines_by_depth(right, tables["effective_rank_shuffled"], dashed=True)
        left.set_title("relative distance from the beginning")
        left.set_ylim(bottom=0)
        right.set_title("effective rank of the difference, share of the full rank")
        right.set_ylim(0, 1.02)
        role_legend(figure, list(tables["distance"]), null="entries shuffled")
    return figure


def draw_spectra(movements: Sequence[Movement]) -> Any:
    """One panel a role."""
    roles = roles_in(movements)
    depth = 1 + max(m.block for m in movements)
    with drawing_style():
        figure, panels = panels_for(roles)
        for panel, role in zip(panels, roles, strict=True):
            for m in (m for m in movements if m.role == role):
                alpha = depth_alpha(m.block, depth)
                spectrum_line(panel, m.values_R, color=role_color(role), alpha=alpha, linewidth=1.0)
                if m.block == depth // 2:
                    spectrum_line(
                        panel, m.shuffled_R, color=INK, linestyle=NULL_DASH, linewidth=1.1
                    )
        logarithmic(panels)
        bottom_labels(panels, "rank", "singular value")
        legend(figure, [("entries shuffled", INK, NULL_DASH, 1.1)])
    return figure
