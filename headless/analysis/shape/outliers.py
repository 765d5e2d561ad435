"""Outlier dimensions and massive activations: which, how consistent, and what they are for."""

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis.claims import Claim, values
from headless.analysis.drawing import Panel, by_depth, heatmap
from headless.analysis.drawing.grid import WIDE
from headless.analysis.drawing.map import draw_maps
from headless.analysis.record import STREAM, Animation, Finding, Map, Measure, Place, series_of
from headless.analysis.registry import analysis
from headless.analysis.session import Session
from headless.analysis.sources import CONJECTURE
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST, REST, Statistics
from headless.analysis.states.capture import Point
from headless.analysis.states.reservoirs import by_place

TOP = 5  # dimensions whose set is followed through the blocks
SCALE = 6.0  # root mean square over the median dimension's, from which on a dimension is one
MASSIVE, MASSIVE_RATIO = 100.0, 1000.0  # Sun et al. 2024
LAYERS, POSITIONS = 0.25, 0.06  # LLM.int8 (Dettmers et al. 2022)
SHOWN = 48  # dimensions in the table of sizes
FRAMES = 32  # of a film at most
SIDE = 64  # dimensions, as many as an example has tokens
GAUSSIAN = "_largest_of_a_Gaussian"
LARGEST = ("largest dimension", "second", "third")
MEASURES = (
    Measure("jaccard_next", "overlap with the next block", null="_chance"),
    Measure("int8_dims", "dimensions at the norms' outputs"),
    Measure("_massive_bound", "10 or 2% of all:"),
    Measure("_int8_bound", "7 and 2% of all:"),
    Measure("massive_dims", "dimensions with massive activations"),
    Measure("cosine_share_top2", "share of the mean cosine that two dimensions carry"),
    Measure("leading_sign_constancy", "share of tokens where the largest dimension has one sign"),
    Measure("median", "median |x|, other positions"),
    *(
        Measure(f"_{group}/{rank}", words, null="" if rank else f"{GAUSSIAN}/{group}")
        for group in ("first", "rest")
        for rank, words in enumerate(LARGEST)
    ),
)


IN_MOST = values("massive_dims", "post").largest.formed(".0f")
INT8 = values("int8_dims").only.formed(".0f")
CLAIMS = (
    Claim(
        CONJECTURE,
        "a few dimensions are outliers in every block, the same ones",
        values("jaccard_next", "post").median >= 0.6,
    ),
    Claim(
        "Timkey and van Schijndel 2021",
        "one to three dimensions carry most of the mean cosine",
        values("cosine_share_top2", "post").known.median.formed(".0%") >= 0.5,
    ),
    Claim(
        "Sun et al. 2024",
        "massive activations: above 100 and 1000 times the median, in very few dimensions",
        (IN_MOST >= 1) & (IN_MOST <= values("_massive_bound").only.formed(".0f")),
    ),
    Claim(
        "Dettmers et al. 2022",
        "outlier features of at least 6 in 25% of the layers and 6% of the positions",
        (INT8 >= 1) & (INT8 <= values("_int8_bound").only.formed(".0f")),
    ),
    Claim(
        f"{CONJECTURE} (its animation)",
        "an outlier dimension keeps its sign over tokens",
        values("leading_sign_constancy", "post").median.formed(".0%") >= 0.95,
    ),
)


@analysis(
    "outliers",
    title="Which dimensions are outliers, and do they stay?",
    about=(
        "A few dimensions of the residual stream are far larger than all others. Four definitions "
        "are kept apart. Rogue: a dimension's share of the mean cosine between states. Scale: a "
        f"root mean square of at least {SCALE:g} times the median dimension's. LLM.int8: |x| of at "
        "least 6 in at least 6 % of the positions of at least 25 % of the layers, asked at the "
        "norms' outputs, which the projections read (in the stream itself 6 is only a matter of "
        "its scale). Massive: a single |x| above 100 and 1000 times the median |x|, position 0 "
        "included. The null is a Gaussian with as many states and dimensions, all of one variance."
    ),
    needs={"text"},
    cheap=True,
    figures=(
        heatmap(
            "outlier-dimensions",
            "Root mean square of each dimension over the median dimension's, by place in the "
            "stream (rows) and dimension (columns, those that are largest anywhere). "
            "Null: Gaussian states of one variance have 1 everywhere.",
            "_sizes",
            x="dimension",
            y="place",
            label="size / median dimension",
            limits=(0.3, 10.0),
            log=True,
            size=(WIDE, 4.5),
        ),
        by_depth(
            "massive-activations",
            "Largest |x| of the first, second and third dimension, over all tokens, and the "
            "median |x|. Dashed: the largest that a Gaussian of the stream's root mean square "
            "would reach in as many values (null).",
            *(
                Panel(title, (*(f"_{group}/{rank}" for rank in range(3)), "median"), STREAM, "|x|",
                      "y")
                for group, title in (("first", "position 0"), ("rest", "other positions"))
            ),
        ),
        by_depth(
            "outlier-consistency",
            f"Overlap (Jaccard) of the {TOP} largest dimensions of each block with the next "
            "block's; dashed: dimensions drawn at random.",
            Panel("", ("jaccard_next",), y="Jaccard", limits=(-0.03, 1.05)),
            wide=False,
        ),
    ),
    claims=CLAIMS,
)  # fmt: skip
def outliers(lab: Session, *, nulls: bool) -> Finding:
    """Outlier dimensions of the stream by each definition, and their consistency."""
    stream = by_place(lab.statistics, "embed", "post")
    posts = [place for place in stream if place.kind == "post"]
    width = stream[posts[0]].powers_G4D.shape[-1]
    top = min(TOP, max(1, width // 4))
    numbers = {place: point_numbers(s) for place, s in stream.items()}
    leading = [set(moments.rms(stream[p]).topk(top).indices.tolist()) for p in posts]
    chance = top * top / width  # dimensions that two random sets share, to first order
    for place, dims, others in zip(posts, leading, leading[1:], strict=False):
        numbers[place]["jaccard_next"] = len(dims & others) / len(dims | others)
        numbers[place]["_chance"] = chance / (2 * top - chance)
    numbers[Place()] = {"_massive_bound": max(10, 0.02 * width), "_int8_bound": 7 + 0.02 * width}
    if (int8_D := int8_dims(lab.statistics)) is not None:
        numbers[Place()]["int8_dims"] = float(int8_D.sum())
    often = np.bincount([d for dims in leading for d in dims], minlength=width)
    persistent = np.flatnonzero(often >= len(posts) / 2)
    rms_PD = torch.stack([moments.rms(s) for s in stream.values()])
    sizes_PD = (rms_PD / rms_PD.median(dim=1, keepdim=True).values).numpy()
    widest = np.sort(np.argsort(sizes_PD.max(axis=0))[::-1][:SHOWN])
    rows = tuple(str(place).removeprefix("post/") for place in stream)
    shown = Map(np.clip(sizes_PD[:, widest], 0.3, None), rows, tuple(map(str, widest)))
    last_D = sizes_PD[list(stream).index(posts[-1])]
    finding = Finding(
        series_of(numbers, MEASURES),
        {
            "persistent": {Place(): persistent},
            "rms": {Place(): sizes_PD},
            "rms_last": {Place(): -np.sort(-last_D)},
            "_sizes": {Place(): shown},
        },
        animations=_through_the_blocks(
            {p: stream[p].example_ED[:, :SIDE].double().numpy() for p in posts}
        ),
    )
    counts, ratios, massive = (
        finding.values(name, "post") for name in ("scale_dims", "largest_ratio", "massive_dims")
    )
    return finding.answered(
        f"After the blocks {counts.min():.0f} to {counts.max():.0f} of {width} dimensions exceed "
        f"{SCALE:g} times the median dimension's size (the largest {ratios.max():.1f} times), and "
        f"{massive.max():.0f} at most have massive activations. {len(persistent)} dimensions stay "
        f"among the {top} largest in half of the blocks or more."
    )


def point_numbers(s: Statistics) -> dict[str, float]:
    """Every measure of one point but those that compare points."""
    rms_D, shares_D = moments.rms(s), moments.cosine_shares(s)
    ratio_D, total = rms_D / rms_D.median(), float(shares_D.sum())
    numbers = {
        "scale_dims": float((ratio_D >= SCALE).sum()),
        "largest_ratio": float(ratio_D.max()),
        "cosine_share_top2": float(shares_D.topk(2).values.sum()) / total if total > 0.01 else nan,
        "largest": float(s.largest_GD.max()),
        "median": float(s.sample_KD.abs().median()),
        "massive_dims": float(massive_dims(s).sum()),
    }
    for group, name in ((FIRST, "first"), (REST, "rest")):
        for rank, size in enumerate(s.largest_GD[group].topk(3).values.tolist()):
            numbers[f"_{name}/{rank}"] = size
        size_D = moments.rms(s, group)
        count = float(s.count_G[group]) * len(size_D)
        gaussian = -torch.special.ndtri(torch.tensor(0.5 / count, dtype=torch.float64))
        numbers[f"{GAUSSIAN}/{name}"] = float(size_D.median() * gaussian)
    if len(x_KD := s.sample_KD.double()):
        dim = int(rms_D.argmax())
        positive = float((x_KD[:, dim] > 0).double().mean())
        numbers |= {
            "leading_dim": float(dim),
            "leading_sign_constancy": max(positive, 1 - positive),
        }
    return numbers


def massive_dims(s: Statistics) -> Tensor:
    """Dimensions [D] with an |x| above 100 and 1000 times the median |x| (Sun et al. 2024)."""
    median = float(s.sample_KD.abs().median())
    return s.largest_GD.amax(dim=0) > max(MASSIVE, MASSIVE_RATIO * median)


def int8_dims(statistics: Mapping[Point, Statistics]) -> Tensor | None:
    """Dimensions [D] that LLM.int8 would keep in 16 bits; None without the norms' outputs."""
    norms = [s for point, s in statistics.items() if point.component in ("norm1", "norm2")]
    if not norms:
        return None
    often_LD = torch.stack([s.outliers_GD.sum(0) / s.count_G.sum() >= POSITIONS for s in norms])
    return often_LD.double().mean(dim=0) >= LAYERS


def _through_the_blocks(examples: Mapping[Place, np.ndarray]) -> tuple[Animation, ...]:
    """The stream of one text's first tokens, a block a frame, on one scale.

    Colours are linear up to the middle block's median, so that the small values of early blocks
    are seen, too: the stream grows.
    """
    if len(examples) < 2:
        return ()
    places = list(examples)
    last, middle = (np.abs(examples[places[i]][1:]) for i in (-1, len(places) // 2))
    full = max(float(np.quantile(last, 0.99)), 1e-12)
    small = min(max(float(np.median(middle)), 1e-3 * full), 0.5 * full)
    steps = np.linspace(0, len(places) - 1, min(len(places), FRAMES)).round().astype(int)
    frames = [places[i] for i in steps]

    def draw(index: int) -> Any:
        x_ED = examples[frames[index]]
        scaled = Map(np.clip(np.arcsinh(x_ED / small) / np.arcsinh(full / small), -1, 1))
        look: dict[str, Any] = {"limits": (-1, 1), "cmap": "RdBu", "size": (5.6, 5)}
        return draw_maps({frames[index]: scaled}, x="dimension", y="token", **look)

    rows, columns = examples[places[0]].shape
    caption = (
        f"The first {columns} dimensions of the first {rows} tokens of one text, after one block "
        "after the other: negative values red, positive ones blue, on one scale for all frames "
        f"(linear up to ±{small:.3g}, logarithmic above; 99 % of the last block's values lie "
        f"within ±{full:.3g}, larger ones have the full colour). An outlier dimension is a column "
        "that stays, a massive activation a single cell."
    )
    names = tuple(f"block {place.block}" for place in frames)
    return (Animation("film-stream", caption, names, draw, wide=False),)
