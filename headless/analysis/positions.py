"""The geometry of positions: the table of position embeddings, and what position does to states.

Shapes: T positions, D hidden size, K components.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis import moments
from headless.analysis.accumulators import Statistics
from headless.analysis.by_depth import middle_blocks
from headless.analysis.capture import Point
from headless.analysis.families import backbone_of
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.latents import PAPER
from headless.errors import HeadlessError
from headless.geometry import (
    Helix,
    helix,
    principal_axes,
    random_walks,
    shares_of_independent,
    unit,
)
from headless.pages.figures import MUTED, drawing_style, new_figure, series_color

WALKS = 39
SUBSPACE = 6
SONG = "Song and Zhong 2023"


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


def position_means(
    statistics: Mapping[Point, Statistics], *, directions: bool
) -> tuple[Tensor, float]:
    """Mean state at each position over sequences and the middle blocks [T, D], float64.

    Args:
        statistics: of `post` points, accumulated by position.
        directions: of unit vectors; else of states as they are.

    Returns:
        The means, and the noise floor: the share of their variance over positions that comes from
        finitely many sequences (of the middle block with the largest one).

    Raises:
        HeadlessError: no such sums.
    """
    measured = [p.block for p in statistics if p.component == "post"]
    chosen = [statistics[Point("post", i)] for i in middle_blocks(measured)]
    if not chosen or any(s.position_unit_TD is None for s in chosen):
        raise HeadlessError("positions need states after blocks, accumulated by position")
    seen = chosen[0].position_count_T > 0
    means = []
    for s in chosen:
        sums_TD = s.position_unit_TD if directions else s.position_sum_TD
        assert sums_TD is not None
        means.append((sums_TD[seen] / s.position_count_T[seen, None]).double().cpu())
    floor = max(
        _noise_floor(s, mean_TD, directions) for s, mean_TD in zip(chosen, means, strict=True)
    )
    return torch.stack(means).mean(dim=0), floor


def _noise_floor(s: Statistics, mean_TD: Tensor, directions: bool) -> float:
    """Variance of a mean over C sequences, over the variance of the means between positions."""
    count_T = s.position_count_T[s.position_count_T > 0]
    between = float((mean_TD[1:] - mean_TD[1:].mean(dim=0)).square().sum(dim=1).mean())
    if directions:
        within = 1 - float(mean_TD[1:].square().sum(dim=1).mean())  # of unit vectors
    else:
        within = float(moments.variance(s).sum()) - between
    return min(1.0, max(0.0, within) / float(count_T.mean()) / max(between, 1e-300))


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
    cosine_TT = (unit_TD @ unit_TD.T).numpy()
    neighbours_T = np.diagonal(cosine_TT, 1).clip(-1, 1)
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
            "Left: cosines between positions. Middle: norms. Right: the helix score beside random "
            "walks.",
            lambda: _draw_helix(cosine_TT, norm_T, found.score, null, shuffled.score),
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


def sequence_geometry(statistics: Mapping[Point, Statistics], *, seed: int = 0) -> Finding:
    """What position and context explain of the stream, block by block, and the path of means.

    Args:
        statistics: of `post` points, accumulated by position, with reservoirs for the subspaces.
        seed: of the null model.

    Raises:
        HeadlessError: no such sums.
    """
    unit_TD, floor = position_means(statistics, directions=True)
    if len(unit_TD) < 8:
        raise HeadlessError("the geometry of positions needs sequences of 8 tokens or more")
    raw_TD, raw_floor = position_means(statistics, directions=False)
    posts = {p.block: s for p, s in statistics.items() if p.component == "post"}
    scalars: dict[str, float] = {
        "sequence/noise_floor": floor,
        "sequence/noise_floor/raw": raw_floor,
        "sequence/sequences": float(next(iter(posts.values())).sequences),
    }
    shares = {}
    for block, s in posts.items():
        if s.position_sum_TD is None:
            continue
        shares[block] = moments.variance_shares(s)
        for part, value in shares[block].items():
            scalars[f"sequence/post/{block:02d}/{part}"] = value
        overlap = _overlap(s, seed)
        if overlap is not None:
            scalars[f"sequence/post/{block:02d}/overlap"] = overlap[0]
            scalars[f"sequence/post/{block:02d}/overlap/null"] = overlap[1]
    axes = principal_axes(unit_TD)
    raw_axes = principal_axes(raw_TD[1:])
    for k, share in enumerate(axes.shares_K.tolist()):
        scalars[f"sequence/share/{k + 1}"] = share
    for k, share in enumerate(raw_axes.shares_K.tolist()):
        scalars[f"sequence/raw/share/{k + 1}"] = share
    tail = _tail(raw_TD)
    scalars["sequence/tail"] = tail
    low = sum(raw_axes.shares_K.tolist())
    scalars["sequence/raw/six_shares"] = low
    middle = middle_blocks(posts)
    overlaps = [scalars.get(f"sequence/post/{b:02d}/overlap", np.nan) for b in middle]
    nulls = [scalars.get(f"sequence/post/{b:02d}/overlap/null", np.nan) for b in middle]
    known = not np.isnan(overlaps).any()
    position = float(np.mean([shares[b]["position"] for b in middle]))
    context = float(np.mean([shares[b]["context"] for b in middle]))
    scalars |= {"sequence/position": position, "sequence/context": context}
    noisy = raw_floor > 0.5
    answer = (
        f"In the middle blocks position explains {position:.1%} and the sequence {context:.1%} of "
        "the stream's variance; the rest is the token in its context. Mean states of the first "
        f"positions lie {tail:.1f} times as far from the middle of the later ones as those do "
        "themselves."
        + (
            f" Of the means' variance {raw_floor:.0%} is noise: measure more sequences."
            if raw_floor > 0.2
            else ""
        )
    )
    claims = (
        Claim(
            f"{PAPER} (LLaMA)",
            "States of the first positions draw a long tail into a dense cloud of later ones",
            None if noisy else tail >= 3,
            f"early over late distance {tail:.1f}, at least 3; noise floor {raw_floor:.2f}, "
            "at most 0.50",
        ),
        Claim(
            f"{PAPER}; {SONG}",
            "What position does is low-dimensional",
            None if noisy else low >= 0.8,
            f"six components hold {low:.2f} of the means' variance, at least 0.80; noise floor "
            f"{raw_floor:.2f}, at most 0.50",
        ),
        Claim(
            SONG,
            "The subspaces of position and of context are nearly orthogonal",
            float(np.mean(overlaps)) <= 2 * float(np.mean(nulls)) if known and not noisy else None,
            f"shared part {np.mean(overlaps):.3f}, at most twice that of random subspaces "
            f"({np.mean(nulls):.3f}); noise floor {raw_floor:.2f}, at most 0.50: noise lies where "
            "contexts vary"
            if known
            else "too few states a sequence in the reservoir",
        ),
    )
    about = (
        "A state can be taken apart into a mean over everything, what is common to all tokens at "
        "its position, what is common to its sequence, and the rest. The shares say how much of "
        "the variance each part has; what finitely many sequences would give by chance is taken "
        "out. The path shows the mean states of the middle blocks from position to position. The "
        "overlap is the part of position's six main directions that lies in context's, beside that "
        "of random subspaces."
    )
    z_TK, raw_z = axes(unit_TD).numpy(), raw_axes(raw_TD[1:]).numpy()
    pictures = (
        Picture(
            "sequence-shares",
            "Shares of the stream's variance by block; chance is 0 after the correction.",
            lambda: _draw_shares(shares),
            wide=False,
        ),
        Picture(
            "sequence-path",
            "Mean unit vectors of the middle blocks by position, all pairs of six components; "
            f"{floor:.0%} of their variance is noise.",
            lambda: draw_pairs(z_TK, axes.shares_K.numpy()),
        ),
        Picture(
            "sequence-path-raw",
            "The same of raw states without the first position; "
            f"{raw_floor:.0%} of their variance is noise.",
            lambda: draw_pairs(raw_z, raw_axes.shares_K.numpy()),
        ),
    )
    arrays = {
        "path": z_TK,
        "path_raw": raw_z,
        "shares": np.array([[s[part] for part in PARTS] for s in shares.values()]),
    }
    return Finding(
        "sequence", "Position and context", about, answer, scalars, arrays, pictures, claims
    )


PARTS = ("position", "context", "rest")


def _tail(raw_TD: Tensor) -> float:
    """Distance of early positions from the middle of later ones, over the later ones' own."""
    rest_TD = raw_TD[1:]
    late_TD = rest_TD[len(rest_TD) // 2 :]
    distance_T = (rest_TD - late_TD.mean(dim=0)).norm(dim=1)
    early = max(1, round(0.05 * len(rest_TD)))
    late = distance_T[len(rest_TD) // 2 :].median().clamp(min=1e-300)
    return float(distance_T[:early].median() / late)


def _overlap(s: Statistics, seed: int) -> tuple[float, float] | None:
    """How much of position's main subspace lies in context's, 0 … 1; the same of random ones."""
    assert s.position_sum_TD is not None
    count_T = s.position_count_T.clamp(min=1)
    mean_TD = (s.position_sum_TD / count_T[:, None]).cpu()
    sequences, where = s.sample_sequences_K.cpu().unique(return_inverse=True)
    if len(s.sample_KD) < 4 * len(sequences) or len(sequences) < 4 * SUBSPACE:
        return None
    rest_KD = s.sample_KD.cpu().double() - mean_TD[s.sample_positions_K.cpu()]
    sums_CD = torch.zeros(len(sequences), rest_KD.shape[1], dtype=torch.float64)
    sums_CD.index_add_(0, where, rest_KD)
    context_CD = sums_CD / where.bincount()[:, None]
    seen = s.position_count_T.cpu()[1:] > 0
    position = principal_axes(mean_TD[1:][seen], SUBSPACE).axes_KD
    context = principal_axes(context_CD, SUBSPACE).axes_KD
    shape = (64, SUBSPACE, rest_KD.shape[1])
    random = torch.linalg.qr(torch.randn(shape, generator=_generator(seed)).double().mT).Q.mT
    shared = float((position @ context.T).square().sum()) / SUBSPACE
    by_chance = float((random @ context.T).square().sum(dim=(1, 2)).mean()) / SUBSPACE
    return shared, by_chance


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_pairs(z_TK: np.ndarray, shares_K: np.ndarray) -> Any:
    """All pairs of components, coloured by position, light where the path begins."""
    pairs = list(combinations(range(z_TK.shape[1]), 2))
    columns = min(5, len(pairs))
    rows = -(-len(pairs) // columns)
    with drawing_style():
        figure = new_figure(11.2, 0.5 + 1.9 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (a, b) in zip(panels, pairs, strict=False):
            panel.plot(z_TK[:, a], z_TK[:, b], color=MUTED, linewidth=0.4, alpha=0.5)
            dots = panel.scatter(
                z_TK[:, a], z_TK[:, b], c=np.arange(len(z_TK)), s=5, cmap="winter", linewidths=0
            )
            panel.set_title(f"{a + 1} ({shares_K[a]:.0%}) and {b + 1} ({shares_K[b]:.0%})")
            panel.set(xticks=[], yticks=[])
        for panel in panels[len(pairs) :]:
            panel.set_visible(False)
        figure.colorbar(dots, ax=list(panels), label="position", fraction=0.02)
    return figure


def _draw_helix(
    cosine_TT: np.ndarray, norm_T: np.ndarray, score: float, null: np.ndarray, shuffled: float
) -> Any:
    with drawing_style():
        figure = new_figure(11.2, 3.3)
        left, middle, right = figure.subplots(1, 3)
        image = left.imshow(cosine_TT, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        left.grid(visible=False)
        left.set(xlabel="position", ylabel="position")
        figure.colorbar(image, ax=left, label="cosine")
        middle.plot(norm_T, color=series_color(0))
        middle.set(xlabel="position", ylabel="norm")
        middle.set_ylim(bottom=0)
        right.hist(null, bins=np.linspace(0, 1, 26), color=MUTED, alpha=0.6, label="random walks")
        right.axvline(shuffled, color=series_color(1), linestyle="--", label="shuffled order")
        right.axvline(score, color=series_color(0), label="this model")
        right.set(xlabel="helix score", ylabel="walks", xlim=(0, 1))
        right.legend()
    return figure


def _draw_shares(shares: Mapping[int, Mapping[str, float]]) -> Any:
    with drawing_style():
        figure = new_figure(5.6, 3.2)
        panel = figure.subplots()
        blocks = list(shares)
        for index, part in enumerate(PARTS):
            values = [shares[b][part] for b in blocks]
            panel.plot(
                blocks, values, marker="o", markersize=4, color=series_color(index), label=part
            )
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="block", ylabel="share of the variance")
        panel.set_ylim(min(-0.02, panel.get_ylim()[0]), 1.02)
        figure.legend(loc="outside upper left", ncols=3)
    return figure
