"""The geometry of positions: is the path from position to position a helix? (A20)

Shapes: T positions, D hidden size, K components.
"""

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.positions_drawing import draw_helix, draw_pairs
from headless.analysis.sources import PAPER
from headless.analysis.states.families import backbone_of
from headless.errors import HeadlessError
from headless.geometry import (
    Helix,
    helix,
    principal_axes,
    random_walks,
    shares_of_independent,
    unit,
)

WALKS = 39


def position_table(backbone: nn.Module) -> Tensor | None:
    """The learned embeddings of positions [T, D], or None where positions are rotations."""
    inside = backbone_of(backbone)
    for name in ("wpe", "embeddings.position_embeddings"):
        try:
            table = inside.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(table, nn.Embedding):
            rows = table.weight.detach()
            # RoBERTa's first positions are the padding's: the table begins after it.
            return rows if table.padding_idx is None else rows[table.padding_idx + 1 :]
    return None


def positional_geometry(
    path_TD: Tensor, *, learned: bool, floor: float = 0.0, seed: int = 0
) -> Finding:
    """Is the path of positions a helix? With random walks and noise beside it.

    Args:
        path_TD: `position_table(backbone)`, as far as positions were trained, or
            `position_means(…)` without the first position.
        learned: it is a table of position embeddings.
        floor: share of the path's variance that is noise.
        seed: of the null models.

    Raises:
        HeadlessError: fewer than 8 positions.
    """
    path_TD = path_TD.detach().double().cpu()
    if len(path_TD) < 8:
        raise HeadlessError("the geometry of positions needs sequences of 8 tokens or more")
    found = helix(path_TD)
    walks = [helix(walk) for walk in random_walks(path_TD, WALKS, seed)]
    null = np.array([walk.score for walk in walks])
    shuffled = helix(path_TD[torch.randperm(len(path_TD), generator=_generator(seed))])
    axes = principal_axes(path_TD)
    z_TK = axes(path_TD).numpy()
    unit_TD = unit(path_TD)
    neighbours_T = (unit_TD[1:] * unit_TD[:-1]).sum(dim=1).clamp(-1, 1).numpy()
    centred_TD = unit(path_TD - path_TD.mean(dim=0))  # a common mean would hide the path
    cosine_TT = (centred_TD @ centred_TD.T).numpy()
    angle = float(np.degrees(np.arccos(neighbours_T)).mean())
    norm_T = path_TD.norm(dim=1).numpy()
    null_share = float(shares_of_independent(path_TD, seed=seed)[0])
    is_helix = found.found and found.score > null.max()
    scalars = {
        "positions/helix": float(is_helix),
        "positions/helix_score": found.score,
        "positions/helix_score/walks_mean": float(null.mean()),
        "positions/helix_score/walks_largest": float(null.max()),
        "positions/helix_score/shuffled": shuffled.score,
        "positions/walks_that_pass": float(np.mean([walk.found for walk in walks])),
        "positions/circle_ratio": found.ratio,
        "positions/circle_rotation": found.rotation,
        "positions/circle_share": found.pair_share,
        "positions/frequency_1": found.frequencies[0],
        "positions/frequency_2": found.frequencies[1],
        "positions/turns": found.turns,
        "positions/phase_r2": found.phase_r2,
        "positions/axis_share": found.axis_share,
        "positions/axis_rho": found.axis_rho,
        "positions/step_degrees": angle,
        "positions/noise_floor": floor,
        "positions/null_share/1": null_share,
        **{f"positions/share/{k + 1}": float(v) for k, v in enumerate(axes.shares_K)},
    }
    what = "position embeddings" if learned else "mean states by position"
    answer = (
        f"The {what} {'form' if is_helix else 'do not form'} a helix: the best circle has a score "
        f"of {found.score:.2f} (random walks {null.mean():.2f}, at most {null.max():.2f}), "
        f"{found.turns:.1f} turns and {found.pair_share:.0%} of the variance about the axis; "
        f"variances in a ratio of {found.ratio:.2f}, frequencies {found.frequencies[0]:.1f} and "
        f"{found.frequencies[1]:.1f}. The axis holds {found.axis_share:.0%} of the variance."
        + (f" {floor:.0%} of the variance is noise of few sequences." if floor > 0.2 else "")
    )
    helical = Claim(
        f"Scherlis 2022, Yedidia 2023, {PAPER} (GPT-2)",
        "Learned position embeddings form a helix in many dimensions",
        is_helix if learned else None,
        _criterion(found, float(null.max())),
    )
    about = (
        "Where a token stands is written into the stream: by a table of learned position "
        "embeddings, or, with rotary embeddings, only through what attention makes of it. Walking "
        "from position to position draws a path through the space. In GPT-2 the path is seen as a "
        "helix. But the principal components of any smooth path look like waves, also those of a "
        "random walk, so a picture proves little. A helix has two components of the same variance "
        "and the same frequency, a quarter of a turn apart; the score is 1 for that and compared "
        f"with {WALKS} random walks and with positions in shuffled order."
    )
    where = "the table of position embeddings" if learned else "mean states by position"
    pictures = (
        Picture(
            "positions-pairs",
            f"All pairs of the first six components of {where}, coloured by position. Smooth "
            "curves alone prove nothing: random walks draw them as well, below.",
            lambda: draw_pairs(z_TK, axes.shares_K.numpy()),
        ),
        Picture(
            "positions-walk",
            "The same components of one random walk: the null model.",
            lambda: draw_pairs(*_walk_pairs(path_TD, seed)),
        ),
        Picture(
            "positions-helix",
            "Left: cosines between positions, their mean taken away. Middle: norms. Right: the "
            "helix score beside random walks.",
            lambda: draw_helix(cosine_TT, norm_T, found.score, null, shuffled.score),
        ),
    )
    arrays = {"path": z_TK, "cosine": cosine_TT, "norm": norm_T, "walk_scores": null}
    return Finding(
        "positions", "The path of positions", about, answer, scalars, arrays, pictures, (helical,)
    )


def _criterion(found: Helix, null: float) -> str:
    return (
        f"helix score {found.score:.2f}, above all random walks ({null:.2f}); ratio "
        f"{found.ratio:.2f}, at most 1.50; frequencies {found.frequencies[0]:.2f} and "
        f"{found.frequencies[1]:.2f}, within 0.20; rotation {found.rotation:.2f}, at least 0.75; "
        f"{found.turns:.1f} turns, at least 1.5; axis |ρ| {found.axis_rho:.2f}, at least 0.90"
    )


def _walk_pairs(path_TD: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    (walk,) = random_walks(path_TD, 1, seed)
    axes = principal_axes(walk)
    return axes(walk).numpy(), axes.shares_K.numpy()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
