"""How much states point one way, by layer and in every variant that sources use."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis import moments
from headless.analysis.accumulators import FIRST, REST, Statistics
from headless.analysis.by_depth import (
    COMPONENT_COLORS,
    COMPONENT_NAMES,
    components_in,
    panels_of,
    states_of,
    stream_of,
)
from headless.analysis.capture import Point
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import ISOTROPY
from headless.geometry import anisotropy as mean_cosine
from headless.geometry.isotropy import isoscore, partition_isotropy
from headless.pages.figures import INK, MUTED, drawing_style, series_color

ROGUE = 5  # dimensions that are taken out for one variant
PARTITION = 1024  # states for the partition function
SHUFFLED = 512  # states whose entries are shuffled
_ABOUT = (
    "The mean cosine between the states of two different tokens: 0 for states that point "
    "everywhere, 1 for one direction. It is exact for all pairs, not estimated from some. Variants "
    "say where it comes from: with position 0 (one very long state in many models) and for "
    "position 0 alone; within one text and between texts; after the common mean is taken away; "
    f"without the {ROGUE} dimensions that add most; with every dimension scaled to mean 0 and "
    "variance 1. Two nulls: directions drawn uniformly (0), and each state's own entries shuffled, "
    "which keeps its length and values but not which dimension holds them. Beside it: the share of "
    "the first singular value, IsoScore (spread of the variance), I(W) (Mu and Viswanath) and the "
    "length of the mean over the mean length."
)
_LINES = {
    "": "mean cosine",
    "/within": "within a text",
    "/without_rogue": f"without {ROGUE} dimensions",
    "/centred": "less the mean",
    "/standardised": "dimensions standardised",
    "/shuffled": "entries shuffled (null)",
}


def layer_anisotropy(
    statistics: Mapping[Point, Statistics],
    *,
    tables: Mapping[str, Tensor] | None = None,
    nulls: bool = True,
    seed: int = 0,
) -> Finding:
    """The mean cosine and its variants at every point, and of tables such as the embeddings.

    Args:
        statistics: of `measure`, with a reservoir.
        tables: matrices [V, D] by name, e.g. "embedding" and "head".
        nulls: also what takes long: the shuffled null and I(W).
        seed: of the shuffled null.

    Raises:
        HeadlessError: no `post` point was measured.
    """
    stream = stream_of(statistics)
    scalars: dict[str, float] = {}
    for point, s in statistics.items():
        for name, value in variants(s, seed, nulls).items():
            scalars[f"anisotropy/{point.name}{name}"] = value
    for name, table_VD in (tables or {}).items():
        table_VD = table_VD.detach().double()
        scalars[f"anisotropy/{name}"] = float(mean_cosine(table_VD))
        scalars[f"anisotropy/{name}/centred"] = float(mean_cosine(table_VD - table_VD.mean(dim=0)))
        values = torch.linalg.eigvalsh(table_VD.T @ table_VD)
        scalars[f"anisotropy/{name}/first_share"] = float(values[-1] / values.sum())
    posts = [Point("post", block) for block, _ in states_of(statistics, "post")]
    return Finding(
        name="anisotropy",
        title="How cone-shaped is each layer?",
        about=_ABOUT,
        answer=_answer(scalars, posts, tables or {}),
        scalars=scalars,
        arrays={
            f"stream{name or '/cosine'}": np.array(
                [scalars.get(f"anisotropy/{p.name}{name}", np.nan) for p, _ in stream]
            )
            for name in _LINES
        },
        pictures=(
            Picture(
                "anisotropy-by-layer",
                "Mean cosine along the residual stream (left: its variants"
                + (", with the shuffled null" if nulls else "")
                + "; 0 is the isotropic one) and at every point of a block (right).",
                lambda: _draw(statistics, scalars, [p for p, _ in stream], tables or {}),
            ),
            Picture(
                "anisotropy-shares",
                "What the dimensions add to the mean cosine, largest first and accumulated: a line "
                "that is high at once is the work of a few dimensions. Dashed: all alike (null).",
                lambda: _draw_shares(statistics, posts),
                wide=False,
            ),
        ),
        claims=_claims(scalars, posts),
    )


def variants(s: Statistics, seed: int = 0, nulls: bool = True) -> dict[str, float]:
    """The mean cosine of the states at one point, "" the plain one, others by suffix."""
    found = {"": moments.mean_cosine(s), "/first": moments.mean_cosine(s, FIRST)}
    unit_D, squares = s.unit_GD.sum(dim=0), float(s.unit_squares_GD.sum())
    n = float(s.count_G.sum())
    found["/with_first"] = (float(unit_D.square().sum()) - squares) / (n * (n - 1))
    rest, pairs = float(s.count_G[REST]), float(s.within_pairs)
    own = float(s.unit_squares_GD[REST].sum())
    total = float(s.unit_GD[REST].square().sum()) - own
    within = float(s.within_square) - own
    found["/within"] = within / pairs if pairs else float("nan")
    between = rest * (rest - 1) - pairs
    found["/between"] = (total - within) / between if between else float("nan")
    found["/mean_ratio"] = float(moments.mean(s).norm()) / moments.mean_norm(s)
    found |= _from_sample(s)
    if nulls:
        found |= _nulls(s, seed)
    if s.outer_DD is not None:
        values = torch.linalg.eigvalsh(s.outer_DD)
        found["/first_share"] = float(values[-1] / values.sum())
        spectrum = moments.eigenvalues(s)
        found["/first_share/centred"] = float(spectrum[0] / spectrum.sum())
        found["/isoscore"] = isoscore(torch.from_numpy(spectrum.copy()))
    return found


def _from_sample(s: Statistics) -> dict[str, float]:
    """Variants that change the states before their lengths are taken: from the reservoir."""
    x_KD = s.sample_KD.double()
    if len(x_KD) < 2:
        return {}
    centred_KD = x_KD - moments.mean(s)
    std_D = moments.variance(s).clamp(min=0).sqrt()
    alive_D = std_D > 0
    shares_D = moments.cosine_shares(s)
    kept_D = torch.ones_like(alive_D)
    kept_D[shares_D.topk(min(ROGUE, len(shares_D) // 4)).indices] = False
    return {
        "/centred": float(mean_cosine(centred_KD)),
        "/without_rogue": float(mean_cosine(x_KD[:, kept_D])),
        "/standardised": float(mean_cosine(centred_KD[:, alive_D] / std_D[alive_D])),
    }


def _nulls(s: Statistics, seed: int) -> dict[str, float]:
    x_KD = s.sample_KD.double()
    if len(x_KD) < 2:
        return {}
    generator = torch.Generator().manual_seed(seed)
    few_KD = x_KD[:SHUFFLED]
    order_KD = torch.rand(few_KD.shape, generator=generator).argsort(dim=1)
    return {
        "/shuffled": float(mean_cosine(few_KD.gather(1, order_KD))),
        "/partition": partition_isotropy(x_KD[:PARTITION]),
    }


def _answer(scalars: Mapping[str, float], posts: Sequence[Point], tables: Mapping[str, Any]) -> str:
    plain = np.array([scalars[f"anisotropy/{p.name}"] for p in posts])
    centred = np.array([scalars.get(f"anisotropy/{p.name}/centred", np.nan) for p in posts])
    clean = np.array([scalars.get(f"anisotropy/{p.name}/without_rogue", np.nan) for p in posts])
    text = (
        f"After the blocks the mean cosine is between {plain.min():.2f} and {plain.max():.2f} "
        f"({plain[-1]:.2f} after the last). Without the {ROGUE} dimensions that add most "
        f"it is {np.median(clean):.2f}, and less the mean {np.median(centred):.3f} (medians over "
        "blocks)."
    )
    for name in tables:
        text += f" The {name} has {scalars[f'anisotropy/{name}']:.2f}."
    return text


def _claims(scalars: Mapping[str, float], posts: Sequence[Point]) -> tuple[Claim, ...]:
    plain = np.array([scalars[f"anisotropy/{p.name}"] for p in posts])
    centred = np.array([scalars.get(f"anisotropy/{p.name}/centred", np.nan) for p in posts])
    clean = np.array([scalars.get(f"anisotropy/{p.name}/without_rogue", np.nan) for p in posts])
    shares = np.array([scalars.get(f"anisotropy/{p.name}/first_share", np.nan) for p in posts])
    gap = [scalars[f"anisotropy/{p.name}/within"] - scalars[f"anisotropy/{p.name}"] for p in posts]
    known = bool(np.isfinite(clean).all())
    bell = len(posts) >= 5 and bool(np.isfinite(shares).all())
    place = int(shares.argmax()) if bell else 0
    return (
        Claim(
            "Ethayarajh 2019",
            "states of all layers but the input are anisotropic, the last ones most",
            bool(plain.min() > 0.1 and plain[-1] >= plain.max() - 0.02),
            f"smallest mean cosine {plain.min():.2f}, above 0.1; last {plain[-1]:.2f}, the largest "
            f"({plain.max():.2f}) within 0.02",
            contested=ISOTROPY,
        ),
        Claim(
            "Godey et al. 2024",
            "anisotropy is inherent to self-attention: found in the middle layers of every model",
            bool(np.median(plain) > 0.1),
            f"median mean cosine over blocks {np.median(plain):.2f}, above 0.1",
            contested=ISOTROPY,
        ),
        Claim(
            "Machina and Mercer 2024",
            "some trained decoders are nearly isotropic",
            bool(plain[-1] < 0.1),
            f"mean cosine after the last block {plain[-1]:.2f}, below 0.1",
            contested=ISOTROPY,
        ),
        Claim(
            "Timkey and van Schijndel 2021",
            "anisotropy is the work of a few rogue dimensions",
            bool(np.median(clean) < 0.5 * np.median(plain))
            if known and plain.max() > 0.1
            else None,
            f"median over blocks {np.median(plain):.2f}, without {ROGUE} dimensions "
            f"{np.median(clean):.2f}: less than half",
        ),
        Claim(
            "Gao et al. 2019, Mu and Viswanath 2018",
            "the cone is a common mean: it vanishes when the mean is taken away",
            bool(np.abs(centred).max() < 0.1) if known else None,
            f"largest mean cosine less the mean {np.abs(centred).max():.3f}, below 0.1",
        ),
        Claim(
            "Ethayarajh 2019",
            "states of one text are more alike than those of different texts",
            bool(np.median(gap) > 0.01) if np.isfinite(gap).all() else None,
            f"within a text {np.median(gap):+.3f} above the mean cosine (median over blocks), more "
            "than 0.01",
        ),
        Claim(
            "Razzhigaev et al. 2024",
            "in decoders the first singular value's share is bell-shaped over depth",
            bool(0 < place < len(posts) - 1) if bell else None,
            f"largest share {shares[place]:.2f} after block {posts[place].block}, neither the "
            "first nor the last"
            if bell
            else "needs five blocks and covariances",
        ),
    )


def _draw(
    statistics: Mapping[Point, Statistics],
    scalars: Mapping[str, float],
    stream: Sequence[Point],
    tables: Mapping[str, Any],
) -> Any:
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.8)
        x = [p.block for p in stream]
        for index, (name, label) in enumerate(_LINES.items()):
            y = [scalars.get(f"anisotropy/{p.name}{name}", np.nan) for p in stream]
            null = name == "/shuffled"
            panels[0].plot(
                x,
                y,
                "--" if null else "-",
                color=MUTED if null else series_color(index),
                marker=None if null else "o",
                markersize=3,
                lw=2.0 if not name else 1.1,
                label=label,
            )
        panels[0].set(title="residual stream", ylabel="mean cosine")
        for component in components_in(statistics):
            blocks = [block for block, _ in states_of(statistics, component)]
            y = [scalars[f"anisotropy/{Point(component, b).name}"] for b in blocks]
            panels[1].plot(
                blocks,
                y,
                color=COMPONENT_COLORS[component],
                marker="o",
                markersize=3,
                lw=1.1,
                label=COMPONENT_NAMES[component],
            )
        for index, name in enumerate(tables):
            height = scalars[f"anisotropy/{name}"]
            panels[1].plot([-1.5], [height], "D^sv"[index % 4], color=INK, markersize=5, label=name)
        panels[1].set(title="all points")
        for panel in panels:
            panel.axhline(0, color=INK, lw=0.7)
            panel.set_xlabel("block")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def _draw_shares(statistics: Mapping[Point, Statistics], posts: Sequence[Point]) -> Any:
    from headless.analysis.by_depth import depth_colors, show_depth
    from headless.pages.figures import compact_ticks

    with drawing_style():
        figure, (panel,) = panels_of(1, height=3.2)
        for point, color in zip(posts, depth_colors(len(posts)), strict=True):
            shares = moments.cosine_shares(statistics[point]).sort(descending=True).values
            if float(shares.sum()) <= 0.01:
                continue
            y = (shares.cumsum(0) / shares.sum()).numpy()
            panel.plot(np.arange(1, len(y) + 1), y, color=color, lw=1.1)
        width = statistics[posts[0]].powers_G4D.shape[-1]
        ranks = np.arange(1, width + 1)
        panel.plot(ranks, ranks / width, "--", color=INK, lw=0.9)
        compact_ticks(panel.xaxis, log=True)
        panel.set(xlabel="dimensions, largest share first", ylabel="share of the mean cosine")
        show_depth(figure, panel, [point.block for point in posts])
    return figure
