"""Outlier dimensions and massive activations: which, how consistent, and what they are for."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from headless.analysis import outlier_figures
from headless.analysis.by_depth import states_of, stream_of
from headless.analysis.finding import Animation, Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics
from headless.analysis.states.capture import Point

TOP = 5  # dimensions whose set is followed through the blocks
SCALE = 6.0  # root mean square over the median dimension's, from which on a dimension is one
MASSIVE, MASSIVE_RATIO = 100.0, 1000.0  # Sun et al. 2024
LAYERS, POSITIONS = 0.25, 0.06  # LLM.int8 (Dettmers et al. 2022)
_ABOUT = (
    "A few dimensions of the residual stream are far larger than all others. Five definitions are "
    "kept apart. Rogue: a dimension's share of the mean cosine between states. Scale: a root mean "
    f"square of at least {SCALE:g} times the median dimension's. LLM.int8: |x| of at least 6 in at "
    "least 6 % of the positions of at least 25 % of the layers, asked at the norms' outputs, which "
    "the projections read (in the stream itself 6 is only a matter of its scale). Massive: a "
    "single |x| above 100 and 1000 times the median |x|, position 0 included. Kurtosis: how heavy "
    "a dimension's own tails are. The null is a Gaussian with as many states and dimensions, all "
    "of one variance."
)


def outliers(statistics: Mapping[Point, Statistics], *, top: int = TOP) -> Finding:
    """Outlier dimensions of the stream by each definition, and their consistency.

    Args:
        statistics: of `measure`, with a reservoir.
        top: how many dimensions are followed through blocks and tokens.

    Raises:
        HeadlessError: no `post` point was measured.
    """
    stream = [(p, s) for p, s in stream_of(statistics) if p.component != "norm_f"]
    posts = states_of(statistics, "post")
    width = posts[0][1].powers_G4D.shape[-1]
    top = min(top, max(1, width // 4))
    scalars: dict[str, float] = {}
    tops: dict[Point, set[int]] = {}
    for point, s in stream:
        key = f"outliers/{point.name}"
        rms_D = moments.rms(s)
        ratio_D = rms_D / rms_D.median()
        shares_D = moments.cosine_shares(s)
        leading_K = rms_D.topk(top).indices
        tops[point] = set(leading_K.tolist())
        median = float(s.sample_KD.abs().median())
        largest = float(s.largest_GD.max())
        scalars |= {
            f"{key}/scale_dims": float((ratio_D >= SCALE).sum()),
            f"{key}/largest_ratio": float(ratio_D.max()),
            f"{key}/cosine_share_top2": _share(shares_D, 2),
            f"{key}/largest": largest,
            f"{key}/median": median,
            f"{key}/massive_dims": float(massive_dims(s).sum()),
            f"{key}/largest_kurtosis": float(moments.excess_kurtosis(s).nan_to_num(-3).max()),
        }
        scalars |= {f"{key}/{k}": v for k, v in _over_tokens(s, leading_K, top).items()}
    post_tops = [tops[Point("post", block)] for block, _ in posts]
    adjacent = [_jaccard(a, b) for a, b in zip(post_tops, post_tops[1:], strict=False)]
    middle = post_tops[len(post_tops) // 2]
    with_middle = np.array([_jaccard(t, middle) for t in post_tops])
    for (block, _), value in zip(posts, with_middle, strict=True):
        scalars[f"outliers/post/{block:02d}/jaccard_middle"] = float(value)
    for (block, _), value in zip(posts, adjacent, strict=False):
        scalars[f"outliers/post/{block:02d}/jaccard_next"] = value
    int8_D = int8_dims(statistics)
    if int8_D is not None:
        scalars["outliers/int8_dims"] = float(int8_D.sum())
    arrays = {
        "rms": torch.stack([moments.rms(s) / moments.rms(s).median() for _, s in stream]).numpy(),
        "rms_last": (moments.rms(posts[-1][1]) / moments.rms(posts[-1][1]).median())
        .sort(descending=True)
        .values.numpy(),
        "jaccard_next": np.array(adjacent),
        "jaccard_middle": with_middle,
        "example": posts[len(posts) // 2][1].example_ED.numpy(),
        "persistent": np.array(_persistent(post_tops, width), dtype=np.int64),
    }
    null = _chance(width, top)
    return Finding(
        name="outliers",
        title="Which dimensions are outliers, and do they stay?",
        about=_ABOUT,
        answer=_answer(scalars, posts, arrays, width, top),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "outlier-dimensions",
                "Root mean square of each dimension over the median dimension's, by place in the "
                "stream (rows) and dimension (columns, those that are largest anywhere). "
                "Null: Gaussian states of one variance have 1 everywhere.",
                lambda: outlier_figures.heat([p for p, _ in stream], arrays["rms"]),
            ),
            Picture(
                "massive-activations",
                "Largest |x| of the first, second and third dimension, over all tokens, and the "
                "median |x|. Dotted: the largest that a Gaussian of the stream's root mean square "
                "would reach in as many values (null).",
                lambda: outlier_figures.massive(stream),
            ),
            Picture(
                "outlier-consistency",
                f"Overlap (Jaccard) of the {top} largest dimensions of each block with the next "
                "block's and with the middle block's; dashed: dimensions drawn at random.",
                lambda: outlier_figures.consistency(posts, arrays, null),
                wide=False,
            ),
            Picture(
                "outlier-example",
                "The first tokens of one text in three blocks: |x| by token and dimension, the "
                "largest dimensions only; the height is logarithmic.",
                lambda: outlier_figures.example(posts),
            ),
            Picture(
                "stream-example",
                "The first dimensions and tokens of one text, block by block: negative values red, "
                "positive ones blue, scaled by each block's median |x|.",
                lambda: outlier_figures.stream(posts),
            ),
        ),
        claims=_claims(scalars, posts, adjacent, null, int8_D, top),
        animations=(_through_the_blocks(posts),) if len(posts) > 1 else (),
    )


def _through_the_blocks(posts: list[tuple[int, Statistics]]) -> Animation:
    scale, small = outlier_figures.stream_scale(posts)
    places = outlier_figures.frames_of(posts)
    rows, columns = posts[0][1].example_ED[:, : outlier_figures.SIDE].shape
    return Animation(
        "film-stream",
        f"The first {columns} dimensions of the first {rows} tokens of one text, after one block "
        "after the other: negative values red, positive ones blue, on one scale for all frames "
        f"(linear up to ±{small:.3g}, logarithmic above; 99 % of the last block's values lie "
        f"within ±{scale:.3g}, larger ones have the full colour). An outlier dimension is a column "
        "that stays, a massive activation a single cell.",
        tuple(f"block {posts[place][0]}" for place in places),
        lambda frame: outlier_figures.stream_frame(posts, places[frame], scale, small),
        wide=False,
    )


def massive_dims(s: Statistics) -> Tensor:
    """Dimensions [D] with an |x| above 100 and 1000 times the median |x| (Sun et al. 2024)."""
    median = float(s.sample_KD.abs().median())
    return s.largest_GD.amax(dim=0) > max(MASSIVE, MASSIVE_RATIO * median)


def int8_dims(statistics: Mapping[Point, Statistics]) -> Tensor | None:
    """Dimensions [D] that LLM.int8 would keep in 16 bits, from the norms' outputs.

    Returns:
        None where no norm's output was measured.
    """
    found = [s for p, s in statistics.items() if p.component in ("norm1", "norm2")]
    if not found:
        return None
    often_LD = torch.stack([s.outliers_GD.sum(0) / s.count_G.sum() >= POSITIONS for s in found])
    return often_LD.double().mean(dim=0) >= LAYERS


def _share(shares_D: Tensor, count: int) -> float:
    """What the largest shares add to the mean cosine; NaN where there is hardly any."""
    total = float(shares_D.sum())
    return (
        float(shares_D.topk(min(count, len(shares_D))).values.sum()) / total
        if total > 0.01
        else float("nan")
    )


def _over_tokens(s: Statistics, leading_K: Tensor, top: int) -> dict[str, float]:
    """How many tokens have the leading dimension among their largest, and with one sign."""
    x_KD = s.sample_KD.double()
    if not len(x_KD):
        return {}
    dim = int(leading_K[0])
    among = (x_KD.abs().topk(top, dim=1).indices == dim).any(dim=1).double().mean()
    positive = float((x_KD[:, dim] > 0).double().mean())
    return {
        "leading_dim": float(dim),
        "leading_among_top": float(among),
        "leading_sign_constancy": max(positive, 1 - positive),
    }


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def _chance(width: int, top: int) -> float:
    """Jaccard of two sets drawn at random, to first order."""
    shared = top * top / width
    return shared / (2 * top - shared)


def _persistent(tops: list[set[int]], width: int) -> list[int]:
    """Dimensions that are among the top ones in at least half of the blocks."""
    counts = np.zeros(width)
    for chosen in tops:
        counts[list(chosen)] += 1
    return np.flatnonzero(counts >= len(tops) / 2).tolist()


def _answer(
    scalars: Mapping[str, float],
    posts: list[tuple[int, Statistics]],
    arrays: Mapping[str, np.ndarray],
    width: int,
    top: int,
) -> str:
    counts = [scalars[f"outliers/post/{b:02d}/scale_dims"] for b, _ in posts]
    ratios = [scalars[f"outliers/post/{b:02d}/largest_ratio"] for b, _ in posts]
    massive = [scalars[f"outliers/post/{b:02d}/massive_dims"] for b, _ in posts]
    text = (
        f"After the blocks {min(counts):.0f} to {max(counts):.0f} of {width} dimensions exceed "
        f"{SCALE:g} times the median dimension's size; the largest is {max(ratios):.1f} times as "
        f"large. Massive activations stand in {max(massive):.0f} dimensions at most."
    )
    if len(arrays["jaccard_next"]):
        stay = len(arrays["persistent"])
        text += (
            f" The {top} largest dimensions of neighbouring blocks overlap by "
            f"{np.median(arrays['jaccard_next']):.2f} (Jaccard, median); {stay} stay among them in "
            "half of the blocks or more."
        )
    return text


def _claims(
    scalars: Mapping[str, float],
    posts: list[tuple[int, Statistics]],
    adjacent: list[float],
    null: float,
    int8_D: Tensor | None,
    top: int,
) -> tuple[Claim, ...]:
    def of(name: str) -> np.ndarray:
        return np.array([scalars[f"outliers/post/{b:02d}/{name}"] for b, _ in posts])

    median = float(np.median(adjacent)) if adjacent else float("nan")
    share, signs = of("cosine_share_top2"), of("leading_sign_constancy")
    known = share[np.isfinite(share)]
    massive = int((of("massive_dims") > 0).sum())
    width = posts[0][1].powers_G4D.shape[-1]
    found = int(int8_D.sum()) if int8_D is not None else 0
    return (
        Claim(
            CONJECTURE,
            "a few dimensions are outliers in every block, the same ones",
            bool(median >= 0.6) if adjacent else None,
            f"median Jaccard of the top {top} dimensions of adjacent blocks {median:.2f}, at least "
            f"0.6 (chance: {null:.2f})",
        ),
        Claim(
            "Timkey and van Schijndel 2021",
            "one to three dimensions carry most of the mean cosine",
            bool(np.median(known) >= 0.5) if len(known) else None,
            "the two largest carry "
            + (f"{np.median(known):.0%} of it (median over blocks)" if len(known) else "nothing")
            + ", at least 50%; asked where the mean cosine is above 0.01",
        ),
        Claim(
            "Sun et al. 2024",
            "massive activations: above 100 and 1000 times the median, in very few dimensions",
            bool(massive and of("massive_dims").max() <= max(10, 0.02 * width)),
            f"in {massive} of {len(posts)} blocks, in {of('massive_dims').max():.0f} dimensions at "
            "most; at least one block, at most 10 dimensions or 2%",
        ),
        Claim(
            "Dettmers et al. 2022",
            "outlier features of at least 6 in 25% of the layers and 6% of the positions",
            bool(0 < found <= 0.02 * width + 7) if int8_D is not None else None,
            f"{found} of {width} dimensions at the norms' outputs, between 1 and 7 or 2%",
        ),
        Claim(
            f"{CONJECTURE} (its animation)",
            "an outlier dimension keeps its sign over tokens",
            bool(np.median(signs) >= 0.95),
            f"the largest dimension has one sign in {np.median(signs):.0%} of the tokens (median "
            "over blocks), at least 95%",
        ),
    )
