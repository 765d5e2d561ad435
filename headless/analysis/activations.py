"""How activations are distributed: histograms and Gaussianity, and spectra of covariances."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headless.analysis import moments
from headless.analysis.accumulators import REST, Statistics, histogram_edges
from headless.analysis.by_depth import (
    COMPONENT_NAMES,
    components_in,
    depth_colors,
    panels_of,
    show_depth,
    states_of,
    stream_of,
    write_title,
)
from headless.analysis.capture import Point
from headless.analysis.finding import Claim, Finding, Picture
from headless.geometry.gaussianity import (
    best_fit,
    fit_distributions,
    gaussian_distance,
    log_density,
)
from headless.geometry.gaussianity import moments as moments_of
from headless.pages.figures import INK, MUTED, drawing_style, series_color

DIRECTIONS = 64  # random directions whose projections are looked at
FITTED = 20_000  # values to which distributions are fitted
CONJECTURE = "Conjecture, Basic Facts about Language Model Internals"
_ABOUT = (
    "The numbers inside the model, at every point of every block, over all tokens but each "
    "sequence's first. Three views are kept apart because they answer differently. Pooled: all "
    "dimensions in one histogram, which mixes dimensions of different size. Per dimension: each "
    "dimension less its mean and over its standard deviation. Random directions: projections of "
    "the states on directions drawn uniformly, which are Gaussian for nearly any cloud of many "
    "independent dimensions and so stand as the null. Excess kurtosis is 0 for a Gaussian and 3 "
    "for a Laplace distribution; Gaussian, logistic, Laplace and Student-t are fitted by maximum "
    "likelihood and the likeliest is named (with a price on each parameter)."
)


def histograms(statistics: Mapping[Point, Statistics], *, seed: int = 0) -> Finding:
    """Pooled, per-dimension and random-direction Gaussianity at every point.

    Args:
        statistics: of `measure`, with a reservoir.
        seed: of the random directions and of the values that are fitted.
    """
    scalars: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {"edges": histogram_edges()}
    kinds: dict[str, dict[Point, str]] = {"pooled": {}, "dimensions": {}}
    for point, s in statistics.items():
        key = f"activations/{point.name}"
        per_dimension = moments.excess_kurtosis(s)
        scalars[f"{key}/kurtosis/pooled"] = moments.pooled_excess_kurtosis(s)
        scalars[f"{key}/kurtosis/median_dimension"] = float(per_dimension.nanmedian())
        scalars[f"{key}/kurtosis/largest_dimension"] = float(per_dimension.nan_to_num(-3).max())
        arrays[f"{point.name}/histogram"] = s.histogram.numpy()
        views = _views(s, seed)
        for name, values in views.items():
            found = moments_of(values)
            if name == "directions":
                scalars[f"{key}/kurtosis/directions"] = found.excess_kurtosis
            scalars[f"{key}/tail_ratio/{name}"] = found.tail_ratio
            scalars[f"{key}/gaussian_distance/{name}"] = gaussian_distance(_some(values, seed))
            arrays[f"{point.name}/{name}"] = np.quantile(values.numpy(), _QUANTILES)
        for name, chosen in kinds.items():
            few = _some(views[name], seed)
            fits = fit_distributions(few)
            chosen[point] = best_fit(fits, len(few))
            scalars[f"{key}/student_t_nu/{name}"] = fits["student_t"].nu
    stream = [point for point, _ in stream_of(statistics)]
    return Finding(
        name="activations",
        title="Are activations Gaussian?",
        about=_ABOUT,
        answer=_answer(scalars, kinds),
        scalars=scalars,
        arrays=arrays,
        pictures=(
            Picture(
                "activation_histograms",
                "Density of the residual stream's entries, logarithmic, in standard deviations: "
                "pooled, and with each dimension standardised by itself. Dashed: a Gaussian; "
                "dotted: a logistic distribution of the same variance.",
                lambda: _draw_histograms(statistics, stream),
            ),
            Picture(
                "activation_kurtosis",
                "Excess kurtosis by block (where large, linear below 1 only): pooled, of "
                "the median dimension, and of random directions (the null). 0: a Gaussian.",
                lambda: _draw_kurtosis(statistics, scalars),
            ),
            Picture(
                "activation_quantiles",
                "Quantiles of the standardised entries against a Gaussian's (a straight line is a "
                "Gaussian), for each dimension by itself and for random directions.",
                lambda: _draw_quantiles(statistics, arrays, stream),
            ),
        ),
        claims=_claims(statistics, scalars, kinds),
    )


_QUANTILES = np.concatenate([np.geomspace(1e-4, 0.5, 60), 1 - np.geomspace(0.5, 1e-4, 60)[1:]])


def _views(s: Statistics, seed: int) -> dict[str, Tensor]:
    """Flat standardised values of the three views, from the reservoir."""
    x_KD = s.sample_KD.double()
    mean_D, std_D = moments.mean(s), moments.variance(s).clamp(min=0).sqrt()
    alive_D = std_D > 0
    scaled_KD = ((x_KD - mean_D) / std_D.where(alive_D, 1.0))[:, alive_D]
    generator = torch.Generator().manual_seed(seed)
    directions_DR = torch.randn(
        scaled_KD.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64
    )
    projected_KR = scaled_KD @ directions_DR
    projected_KR = (projected_KR - projected_KR.mean(dim=0)) / projected_KR.std(dim=0)
    return {
        "pooled": ((x_KD - x_KD.mean()) / x_KD.std()).flatten(),
        "dimensions": scaled_KD.flatten(),
        "directions": projected_KR.flatten(),
    }


def _some(values_N: Tensor, seed: int) -> Tensor:
    if len(values_N) <= FITTED:
        return values_N
    generator = torch.Generator().manual_seed(seed)
    return values_N[torch.randint(len(values_N), (FITTED,), generator=generator)]


def _stream_scalar(
    scalars: Mapping[str, float], points: Sequence[Point], name: str
) -> tuple[np.ndarray, np.ndarray]:
    found = [(p.block, scalars[f"activations/{p.name}/{name}"]) for p in points]
    return np.array([b for b, _ in found]), np.array([v for _, v in found])


def _answer(scalars: Mapping[str, float], kinds: Mapping[str, Mapping[Point, str]]) -> str:
    posts = [p for p in kinds["pooled"] if p.component == "post"]
    pooled = _stream_scalar(scalars, posts, "kurtosis/pooled")[1]
    single = _stream_scalar(scalars, posts, "kurtosis/median_dimension")[1]
    names = [kinds["dimensions"][p].replace("_", "-") for p in posts]
    common = max(sorted(set(names)), key=names.count)
    return (
        f"After the blocks the excess kurtosis is {np.median(pooled):.1f} pooled (between "
        f"{pooled.min():.1f} and {pooled.max():.1f}) and {np.median(single):.2f} in the median "
        f"dimension (0: Gaussian). The likeliest distribution of standardised dimensions is "
        f"{common} after {names.count(common)} of {len(names)} blocks."
    )


def _claims(
    statistics: Mapping[Point, Statistics],
    scalars: Mapping[str, float],
    kinds: Mapping[str, Mapping[Point, str]],
) -> tuple[Claim, ...]:
    posts = [Point("post", block) for block, _ in states_of(statistics, "post")]
    middle = [posts[0]] if len(posts) == 1 else posts
    kurtosis = np.median(np.abs(_stream_scalar(scalars, middle, "kurtosis/median_dimension")[1]))
    largest = _stream_scalar(scalars, posts, "kurtosis/pooled")[1]
    tails = _stream_scalar(scalars, posts, "tail_ratio/pooled")[1]
    heavy = [kinds["pooled"][p] != "gaussian" for p in posts]
    blocks, single = _stream_scalar(scalars, posts, "kurtosis/median_dimension")
    half = len(single) // 2
    early, late = (np.median(np.abs(part)) for part in (single[: max(half, 1)], single[half:]))
    return (
        Claim(
            CONJECTURE,
            "activations are nearly Gaussian",
            bool(kurtosis < 0.5),
            f"median over blocks of the median dimension's |excess kurtosis| {kurtosis:.2f}, "
            "below 0.5",
        ),
        Claim(
            CONJECTURE,
            "with extreme outliers",
            bool(np.median(tails) > 5),
            f"{np.median(tails):.0f} times as many pooled entries beyond 4 standard deviations as "
            f"a Gaussian has (median over blocks), more than 5; pooled kurtosis up to "
            f"{largest.max():.0f}",
        ),
        Claim(
            CONJECTURE + ", comments",
            "tails are heavier than a Gaussian's, nearer to a logistic or exponential one",
            bool(np.mean(heavy) > 0.5),
            f"logistic, Laplace or Student-t likelier than a Gaussian after {sum(heavy)} of "
            f"{len(heavy)} blocks, more than half",
        ),
        Claim(
            "SmolLM2-135M, measured with this laboratory's definitions",
            "dimensions become more Gaussian with depth",
            bool(late < early) if len(blocks) > 1 else None,
            f"median |excess kurtosis| {early:.2f} in the first half, {late:.2f} in the second",
        ),
    )


def _shown(points: Sequence[Point], count: int = 6) -> list[Point]:
    places = np.unique(np.linspace(0, len(points) - 1, min(count, len(points))).astype(int))
    return [points[i] for i in places]


def _draw_histograms(statistics: Mapping[Point, Statistics], stream: Sequence[Point]) -> Any:
    shown = _shown(stream)
    with drawing_style():
        figure, panels = panels_of(len(shown))
        grid = np.linspace(-12, 12, 481)
        z = torch.from_numpy(grid)
        logistic = math.sqrt(3) / math.pi
        for panel, point in zip(panels, shown, strict=True):
            s = statistics[point]
            for index, (name, values) in enumerate(list(_views(s, 0).items())[:2]):
                if name == "pooled":
                    x, density = _pooled_density(s)
                else:
                    counts, edges = np.histogram(values.numpy(), np.linspace(-12, 12, 121))
                    x, density = (edges[1:] + edges[:-1]) / 2, counts / len(values) / np.diff(edges)
                label = {"pooled": "pooled", "dimensions": "each dimension by itself"}[name]
                panel.plot(
                    x,
                    np.where(density > 0, density, np.nan),
                    color=series_color(index),
                    label=label,
                )
            panel.plot(grid, log_density("gaussian", z).exp(), "--", color=INK, lw=0.9)
            heavier = log_density("logistic", z / logistic).exp() / logistic
            panel.plot(grid, heavier, ":", color=MUTED, lw=1.1)
            panel.set(yscale="log", ylim=(1e-7, 30), xlim=(-12, 12), title=write_title(point))
            panel.set_xlabel("standard deviations")
        panels[0].legend(loc="lower center", fontsize=8)
        panels[0].set_ylabel("density")
        _plain_log(panels)
    return figure


def _plain_log(panels: Sequence[Any]) -> None:
    """Powers of ten without mathematics, which stays unset in text."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for panel in panels:
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        panel.yaxis.set_minor_formatter(NullFormatter())


def _pooled_density(s: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """From the histogram of all entries, in bins of a tenth of a standard deviation."""
    total = s.powers_G4D[REST].mean(dim=1) / s.count_G[REST]
    mean, std = float(total[0]), math.sqrt(float(total[1] - total[0] ** 2))
    edges = (histogram_edges() - mean) / std
    middles, counts = (edges[1:] + edges[:-1]) / 2, s.histogram.numpy()
    wanted = np.linspace(-12, 12, 121)
    binned, _ = np.histogram(middles, wanted, weights=counts)
    return (wanted[1:] + wanted[:-1]) / 2, binned / counts.sum() / np.diff(wanted)


def _draw_kurtosis(statistics: Mapping[Point, Statistics], scalars: Mapping[str, float]) -> Any:
    names = {
        "pooled": "pooled",
        "median_dimension": "median dimension",
        "directions": "random directions (null)",
    }
    shown = components_in(statistics)
    with drawing_style():
        figure, panels = panels_of(len(shown))
        for panel, component in zip(panels, shown, strict=True):
            points = [Point(component, block) for block, _ in states_of(statistics, component)]
            for index, (name, label) in enumerate(names.items()):
                x, y = _stream_scalar(scalars, points, f"kurtosis/{name}")
                color = MUTED if name == "directions" else series_color(index)
                panel.plot(x, y, color=color, marker="o", markersize=3, label=label)
            low, high = panel.get_ylim()
            if max(-low, high) > 10:
                panel.set_yscale("symlog", linthresh=1.0)
            else:
                panel.yaxis.get_major_locator().set_params(nbins=5)
            panel.axhline(0, color=INK, lw=0.7)
            panel.set(title=COMPONENT_NAMES[component], xlabel="block")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.yaxis.set_major_formatter(_number)
        panels[0].set_ylabel("excess kurtosis")
        panels[0].legend(fontsize=8)
    return figure


def _number(value: float, _: Any = None) -> str:
    from headless.pages.numbers import compact

    return compact(value).replace("-", "−")


def _draw_quantiles(
    statistics: Mapping[Point, Statistics],
    arrays: Mapping[str, np.ndarray],
    stream: Sequence[Point],
) -> Any:
    expected = torch.special.ndtri(torch.from_numpy(_QUANTILES)).numpy()
    with drawing_style():
        figure, panels = panels_of(2, columns=2, height=3.6)
        titles = {
            "dimensions": "each dimension by itself",
            "directions": "random directions (null)",
        }
        posts = [point for point in stream if point.component == "post"]
        for panel, (name, title) in zip(panels, titles.items(), strict=True):
            for point, color in zip(posts, depth_colors(len(posts)), strict=True):
                panel.plot(expected, arrays[f"{point.name}/{name}"], color=color, lw=1.0)
            panel.plot(expected, expected, "--", color=INK, lw=0.9)
            panel.set(title=title, xlabel="quantile of a Gaussian", ylim=(-8, 8))
        panels[0].set_ylabel("quantile, standard deviations")
        show_depth(figure, panels[-1], [point.block for point in posts])
    return figure
