"""What position and context explain of the stream, and the path of mean states (A21).

Shapes: T positions, D hidden size, K components.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.positions_drawing import PARTS, draw_pairs, draw_shares
from headless.analysis.sources import PAPER
from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point, middle_blocks
from headless.analysis.states.reservoirs import position_means
from headless.errors import HeadlessError
from headless.geometry import principal_axes

SUBSPACE = 6
SONG = "Song and Zhong 2023"


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
    # Directions: a massive token somewhere in the text would decide a mean of raw states.
    spread = float((unit_TD[1:] - unit_TD[1:].mean(dim=0)).square().sum(dim=1).mean())
    tail = _tail(unit_TD, floor * spread)
    scalars["sequence/tail"] = tail
    scalars["sequence/tail/with_noise"] = _tail(unit_TD, 0.0)
    low = sum(principal_axes(unit_TD[1:]).shares_K.tolist())
    scalars["sequence/six_shares"] = low
    scalars["sequence/raw/six_shares"] = sum(raw_axes.shares_K.tolist())
    middle = middle_blocks(posts)
    overlaps = [scalars.get(f"sequence/post/{b:02d}/overlap", np.nan) for b in middle]
    nulls = [scalars.get(f"sequence/post/{b:02d}/overlap/null", np.nan) for b in middle]
    known = not np.isnan(overlaps).any()
    position = float(np.mean([shares[b]["position"] for b in middle]))
    context = float(np.mean([shares[b]["context"] for b in middle]))
    scalars |= {"sequence/position": position, "sequence/context": context}
    noisy = floor > 0.5
    answer = (
        f"In the middle blocks position explains {position:.1%} and the sequence {context:.1%} of "
        "the stream's variance; the rest is the token in its context. Mean states of the first "
        f"positions lie {tail:.1f} times as far from the middle of the later ones as those do "
        "themselves, noise taken out."
        + (
            f" Of the means' variance {floor:.0%} is noise of finitely many sequences."
            if floor > 0.2
            else ""
        )
    )
    claims = (
        Claim(
            f"{PAPER} (LLaMA)",
            "States of the first positions draw a long tail into a dense cloud of later ones",
            tail >= 3 if floor < 0.95 else None,
            f"early over late distance of directions {tail:.1f} without noise, at least 3; noise "
            f"floor {floor:.2f}, below 0.95",
        ),
        Claim(
            f"{PAPER}; {SONG}",
            "What position does is low-dimensional",
            None if noisy else low >= 0.8,
            f"six components hold {low:.2f} of the variance of mean directions, at least 0.80; "
            f"noise floor {floor:.2f}, at most 0.50",
        ),
        Claim(
            SONG,
            "The subspaces of position and of context are nearly orthogonal",
            float(np.mean(overlaps)) <= 2 * float(np.mean(nulls)) if known and not noisy else None,
            f"shared part {np.mean(overlaps):.3f}, at most twice that of random subspaces "
            f"({np.mean(nulls):.3f}); noise floor {floor:.2f}, at most 0.50: noise lies where "
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
            lambda: draw_shares(shares),
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


def _tail(mean_TD: Tensor, noise: float) -> float:
    """Distance of early positions from the middle of later ones, over the later ones' own.

    Args:
        mean_TD: by position, from position 0 on, which is left out.
        noise: expected squared distance of a mean from its expectation; it is taken out. What is
            left of the later distance is no less than a tenth of it: a cloud within the noise
            has no size that could be told.
    """
    rest_TD = mean_TD[1:]
    half = len(rest_TD) // 2
    square_T = (rest_TD - rest_TD[half:].mean(dim=0)).square().sum(dim=1)
    early = float(square_T[: max(1, round(0.05 * len(rest_TD)))].median()) - noise
    late = float(square_T[half:].median()) - noise
    return (max(early, 0.0) / max(late, 0.1 * noise, 1e-300)) ** 0.5


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
