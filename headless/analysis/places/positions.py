"""The path of positions, a helix or not, and what position and context explain of the stream.

Shapes: T positions, D hidden size, K components.
"""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.claims import Claim, Criterion, values
from headless.analysis.drawing import Panel, by_depth, cloud, heatmap
from headless.analysis.places.latents import share_numbers
from headless.analysis.record import Cloud, Finding, Map, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import PAPER
from headless.analysis.states import moments
from headless.analysis.states.capture import middle_blocks
from headless.analysis.states.families import backbone_of
from headless.analysis.states.reservoirs import by_place, position_means
from headless.errors import HeadlessError
from headless.geometry import Projection, helix, principal_axes, random_walks, unit
from headless.geometry.projection import shares_of_independent

WALKS = 39
SONG = "Song and Zhong 2023"
MEASURES = (
    Measure("helix", "tests that a helix passes (one rotation of two alike components, an axis)"),
    Measure("helix_score/walks_largest", "largest score of random walks"),
)
TOO_SHORT = "the geometry of positions needs sequences of 8 tokens or more"


def position_table(backbone: nn.Module) -> Tensor | None:
    """The learned embeddings of positions [T, D], or None where positions are rotations."""
    for name, module in backbone_of(backbone).named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("wpe", "position_embeddings")):
            # RoBERTa's first positions are the padding's: the table begins after it.
            padding = module.padding_idx
            return module.weight.detach()[0 if padding is None else padding + 1 :]
    return None


def _pairs(axes: Projection, path_TD: Tensor) -> dict[Place, Cloud]:
    z_TK = axes(path_TD).numpy()
    named = [f"{k} ({share:.0%})" for k, share in enumerate(axes.shares_K.tolist(), 1)]
    return {
        Place(f"{named[a]} and {named[b]}"): Cloud(z_TK[:, [a, b]], np.arange(len(z_TK)))
        for a, b in combinations(range(z_TK.shape[1]), 2)
    }


LEARNED = Criterion(lambda finding: "_learned" in finding.payloads, lambda finding: "")
SCORE, WALK_SCORE = values("helix_score").only, values("helix_score/walks_largest").only


@analysis(
    "positions",
    title="The path of positions",
    about=(
        "Where a token stands is written into the stream: by a table of learned position "
        "embeddings, or, with rotary embeddings, only through what attention makes of it. In GPT-2 "
        "the path from position to position is seen as a helix. But the principal components of "
        "any smooth path look like waves, also those of a random walk. A helix has two components "
        "of the same variance and frequency, a quarter of a turn apart; the score is 1 for that "
        f"and compared with {WALKS} random walks and with positions in shuffled order."
    ),
    needs={"text"},
    figures=(
        cloud(
            "positions-pairs",
            "All pairs of the first six components of the table of position embeddings, or where "
            "there is none of mean states by position.",
            "_pairs",
            color="position",
            columns=5,
            joined=True,
        ),
        heatmap(
            "positions-cosines",
            "Cosines between positions, their mean taken away.",
            "cosine",
            x="position",
            y="position",
            limits=(-1, 1),
            cmap="RdBu_r",
            wide=False,
        ),
    ),
    claims=(
        Claim(
            f"Scherlis 2022, Yedidia 2023, {PAPER} (GPT-2)",
            "Learned position embeddings form a helix in many dimensions",
            ((values("helix").only >= 1) & (SCORE > WALK_SCORE)).given(LEARNED),
        ),
    ),
)
def positions(lab: Session, *, nulls: bool) -> Finding | None:
    """Of the table of position embeddings, as far as it was trained, or of mean directions."""
    table_TD = position_table(lab.subject.backbone)
    if table_TD is None and lab.claims_only:
        return None  # the one claim is of learned positions
    if table_TD is None:
        means_TD, floor = position_means(lab.statistics)
        return path_finding(means_TD[1:], False, floor, lab.seed)  # the first is of another kind
    return path_finding(table_TD[: lab.sequences.shape[1]], True, 0.0, lab.seed)


def path_finding(path_TD: Tensor, learned: bool, floor: float, seed: int) -> Finding:
    """Is a path a helix? `floor` is the share of its variance that is noise."""
    path_TD = path_TD.detach().double().cpu()
    if len(path_TD) < 8:
        raise HeadlessError(TOO_SHORT)
    best, axes, unit_TD = helix(path_TD), principal_axes(path_TD), unit(path_TD)
    walks = [helix(walk) for walk in random_walks(path_TD, WALKS, seed)]
    scores = np.array([walk.score for walk in walks])
    order_T = torch.randperm(len(path_TD), generator=torch.Generator().manual_seed(seed))
    step_T = (unit_TD[1:] * unit_TD[:-1]).sum(dim=1).clamp(-1, 1).arccos()
    centred_TD = unit(path_TD - path_TD.mean(dim=0))  # a common mean would hide the path
    is_helix = best.is_helix and best.score > scores.max()
    numbers = {
        "helix": float(is_helix),
        "helix_score": best.score,
        "helix_score/walks_mean": float(scores.mean()),
        "helix_score/walks_largest": float(scores.max()),
        "helix_score/shuffled": helix(path_TD[order_T]).score,
        "circle_share": best.pair_share,
        "turns": best.turns,
        "axis_share": best.axis_share,
        "axis_rho": best.axis_rho,
        "step_degrees": float(torch.rad2deg(step_T).mean()),
        "noise_floor": floor,
        "null_share/1": float(shares_of_independent(path_TD, seed=seed)[0]),
        **share_numbers("share", axes.shares_K),
    }
    payloads: dict[str, dict[Place, Any]] = {
        "path": {Place(): axes(path_TD).numpy()},
        "cosine": {Place(): Map((centred_TD @ centred_TD.T).numpy())},
        "_pairs": _pairs(axes, path_TD),
        **({"_learned": {}} if learned else {}),
    }
    answer = (
        f"The {'position embeddings' if learned else 'mean states by position'} "
        f"{'form' if is_helix else 'do not form'} a helix: the best circle has a score of "
        f"{best.score:.2f} (random walks {scores.mean():.2f}, at most {scores.max():.2f}), "
        f"{best.turns:.1f} turns and {best.pair_share:.0%} of the variance about the axis."
    )
    if floor > 0.2:
        answer += f" {floor:.0%} of the variance is noise of few sequences."
    return Finding(series_of({Place(): numbers}, MEASURES), payloads).answered(answer)


FLOOR = values("noise_floor").only


@analysis(
    "positions",
    name="sequence",
    title="Position and context",
    about=(
        "A state is a mean over everything, what is common to all tokens at its position, what is "
        "common to its sequence, and the rest. The shares say how much of the variance each part "
        "has, less what finitely many sequences would give by chance."
    ),
    needs={"text"},
    figures=(
        by_depth(
            "sequence-shares",
            "Shares of the stream's variance by block; chance is 0 after the correction.",
            Panel("", ("position", "context", "rest"), ("post",), "share of the variance"),
            wide=False,
        ),
    ),
    claims=(
        Claim(
            f"{PAPER} (LLaMA)",
            "States of the first positions draw a long tail into a dense cloud of later ones",
            (values("tail").only >= 3).given(FLOOR < 0.95, "noise hides it"),
        ),
        Claim(
            f"{PAPER}; {SONG}",
            "What position does is low-dimensional",
            (values("six_shares").only >= 0.8).given(FLOOR <= 0.5, "noise hides it"),
        ),
    ),
)
def sequence(lab: Session, *, nulls: bool) -> Finding:
    """Block by block what position and context explain, and the path of mean states."""
    unit_TD, floor = position_means(lab.statistics)
    if len(unit_TD) < 8:
        raise HeadlessError(TOO_SHORT)
    axes = principal_axes(unit_TD)
    posts = by_place(lab.statistics, "post")
    shares = {place: moments.variance_shares(s) for place, s in posts.items()}
    middle = [shares[Place("post", i)] for i in middle_blocks([p.block or 0 for p in posts])]
    # Directions: a massive token somewhere in the text would decide a mean of raw states.
    spread = float((unit_TD[1:] - unit_TD[1:].mean(dim=0)).square().sum(dim=1).mean())
    whole = {
        "noise_floor": floor,
        "sequences": float(next(iter(posts.values())).sequences),
        **share_numbers("share", axes.shares_K),
        "tail": _tail(unit_TD, floor * spread),
        "tail/with_noise": _tail(unit_TD, 0.0),
        "six_shares": float(principal_axes(unit_TD[1:]).shares_K.sum()),
        **{part: float(np.mean([x[part] for x in middle])) for part in ("position", "context")},
    }
    return Finding(series_of({Place(): whole, **shares})).answered(
        f"In the middle blocks position explains {whole['position']:.1%} and the sequence "
        f"{whole['context']:.1%} of the stream's variance. Mean states of the first positions lie "
        f"{whole['tail']:.1f} times as far from the middle of the later ones as those do "
        f"themselves; {floor:.0%} of the means' variance is noise, taken out."
    )


def _tail(mean_TD: Tensor, noise: float) -> float:
    """Distance of early positions from the middle of later ones, over the later ones' own.

    The expected squared distance `noise` of a mean from its expectation is taken out. What is left
    of the later distance is no less than a tenth of it: a cloud within the noise has no size that
    could be said. Position 0 is left out.
    """
    rest_TD = mean_TD[1:]
    half = len(rest_TD) // 2
    square_T = (rest_TD - rest_TD[half:].mean(dim=0)).square().sum(dim=1)
    early = float(square_T[: max(1, round(0.05 * len(rest_TD)))].median()) - noise
    late = float(square_T[half:].median()) - noise
    return (max(early, 0.0) / max(late, 0.1 * noise, 1e-300)) ** 0.5
