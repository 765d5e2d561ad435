"""How activations are distributed: histograms and Gaussianity, and spectra of covariances."""

from collections.abc import Mapping

import numpy as np

from headless.analysis.activations_drawing import draw_histograms, draw_kurtosis, draw_quantiles
from headless.analysis.activations_measure import QUANTILES, course, some, views_of
from headless.analysis.by_depth import states_of, stream_of
from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.sources import CONJECTURE, SMOLLM2
from headless.analysis.states import moments
from headless.analysis.states.accumulators import Statistics, histogram_edges
from headless.analysis.states.capture import Point
from headless.geometry.gaussianity import best_fit, fit_distributions, gaussian_distance
from headless.geometry.gaussianity import moments as moments_of

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
        views = views_of(s, seed)
        for name, values in views.items():
            found = moments_of(values)
            if name == "directions":
                scalars[f"{key}/kurtosis/directions"] = found.excess_kurtosis
            scalars[f"{key}/tail_ratio/{name}"] = found.tail_ratio
            scalars[f"{key}/gaussian_distance/{name}"] = gaussian_distance(some(values, seed))
            arrays[f"{point.name}/{name}"] = np.quantile(values.numpy(), QUANTILES)
        for name, chosen in kinds.items():
            few = some(views[name], seed)
            fits = fit_distributions(few)
            chosen[point] = best_fit(fits, len(few))
            scalars[f"{key}/student_t_nu/{name}"] = fits["student_t"].nu
            gain = fits["logistic"].log_likelihood - fits["gaussian"].log_likelihood
            scalars[f"{key}/logistic_gain/{name}"] = gain
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
                "activation-histograms",
                "Density of the residual stream's entries, logarithmic, in standard deviations: "
                "pooled, and with each dimension standardised by itself. Dashed: a Gaussian; "
                "dotted: a logistic distribution of the same variance.",
                lambda: draw_histograms(statistics, stream),
            ),
            Picture(
                "activation-kurtosis",
                "Excess kurtosis by block (where large, linear below 1 only): pooled, of "
                "the median dimension, and of random directions (the null). 0: a Gaussian.",
                lambda: draw_kurtosis(statistics, scalars),
            ),
            Picture(
                "activation-quantiles",
                "Quantiles of the standardised entries against a Gaussian's (a straight line is a "
                "Gaussian), for each dimension by itself and for random directions.",
                lambda: draw_quantiles(statistics, arrays, stream),
            ),
        ),
        claims=_claims(statistics, scalars),
    )


def _answer(scalars: Mapping[str, float], kinds: Mapping[str, Mapping[Point, str]]) -> str:
    posts = [p for p in kinds["pooled"] if p.component == "post"]
    pooled = course(scalars, posts, "kurtosis/pooled")[1]
    single = course(scalars, posts, "kurtosis/median_dimension")[1]
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
) -> tuple[Claim, ...]:
    posts = [Point("post", block) for block, _ in states_of(statistics, "post")]
    middle = [posts[0]] if len(posts) == 1 else posts
    kurtosis = np.median(np.abs(course(scalars, middle, "kurtosis/median_dimension")[1]))
    largest = course(scalars, posts, "kurtosis/pooled")[1]
    tails = course(scalars, posts, "tail_ratio/pooled")[1]
    gains = course(scalars, posts, "logistic_gain/pooled")[1]
    heavy = gains > 0
    blocks, single = course(scalars, posts, "kurtosis/median_dimension")
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
            f"a logistic distribution likelier than a Gaussian after {sum(heavy)} of {len(heavy)} "
            f"blocks (median {np.median(gains):+.3f} nats an entry), more than half",
        ),
        Claim(
            SMOLLM2,
            "dimensions become more Gaussian with depth",
            bool(late <= 0.8 * early) if len(blocks) > 1 else None,
            f"median |excess kurtosis| {early:.2f} in the first half, {late:.2f} in the second, at "
            "most 0.8 of it",
            kind="own",
        ),
    )
