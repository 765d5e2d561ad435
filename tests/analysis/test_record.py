"""Keys, claims and figures all derive from values at places."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headless.analysis.claims import Claim, share, values
from headless.analysis.drawing import Panel, Ranks, by_depth, by_rank, cloud, density, heatmap
from headless.analysis.record import (
    STREAM,
    Cloud,
    Figure,
    Finding,
    Map,
    Measure,
    Place,
    Sample,
    Spectrum,
    mean,
    series_of,
)

MEASURES = (Measure("", "cosine", null="shuffled"), Measure("rank", "effective rank"))
NUMBERS = {
    Place("embed"): {"": 0.1, "shuffled": 0.01},
    Place("post", 0): {"": 0.2, "shuffled": 0.02, "rank": 4.0},
    Place("post", 1): {"": 0.5, "shuffled": 0.03, "rank": 3.0},
    Place("head"): {"": 0.4},
}


def finding(**more: Any) -> Finding:
    return Finding(series_of(NUMBERS, MEASURES), name="a", **more)


@pytest.mark.parametrize("text", ["post/03", "embedding", "", "a/b", "norm1/112"])
def test_places_are_read_as_they_are_spelled(text: str) -> None:
    assert str(Place.parse(text)) == text


def test_keys_are_places_and_measures() -> None:
    assert finding().scalars == {
        "a/embed": 0.1, "a/post/00": 0.2, "a/post/01": 0.5, "a/head": 0.4,
        "a/embed/shuffled": 0.01, "a/post/00/shuffled": 0.02, "a/post/01/shuffled": 0.03,
        "a/post/00/rank": 4.0, "a/post/01/rank": 3.0,
    }  # fmt: skip
    means = Finding(series_of({p: NUMBERS[p] for p in NUMBERS if p.block is not None},
                              MEASURES, per_kind=True), name="a").scalars  # fmt: skip
    assert means == pytest.approx({"a/post": 0.35, "a/post/shuffled": 0.025, "a/post/rank": 3.5})
    np.testing.assert_array_equal(finding().arrays["post/rank"], [4, 3])
    assert np.isnan(mean(np.array([np.nan])))


def test_a_claim_says_what_it_tests() -> None:
    cosine, rank = values("", "post"), values("rank", "post")
    rows = [
        (cosine.last >= cosine.largest.less(0.1), True),
        (cosine.median > 0.36, False),
        ((cosine.median > 0.36) | (rank.smallest <= 3), True),
        ((cosine.median > 0.36) & (rank.smallest <= 3), False),
        ((rank - cosine).largest < 4, True),
        (values("missing").last > 0, None),
        (share("ranks over 3:", lambda x: x > 3, "rank") >= 0.5, True),
        ((rank.median > 0).given(rank.count >= 5, "needs five blocks"), None),
        (0.5 * cosine.largest > 0.2, True),
        (rank.peak > 0, False),
    ]
    answers = [Claim("S", "t", criterion).answer(finding()) for criterion, _ in rows]
    assert [answer.agrees for answer in answers] == [verdict for _, verdict in rows]
    assert answers[1].criterion == "median cosine 0.35, above 0.36"
    assert answers[6].criterion == "ranks over 3: 50%, at least 50%"
    assert answers[7].criterion == "needs five blocks"


def test_what_is_not_finite_is_not_asked() -> None:
    numbers = {Place("post", 0): {"x": np.nan}, Place("post", 1): {"x": 2.0}}
    one = Finding(series_of(numbers), name="a")
    assert Claim("S", "t", values("x").mean > 1).answer(one).agrees is None
    assert Claim("S", "t", values("x").known.mean > 1).answer(one).agrees is True


FIGURES = (
    by_depth("d", "D.", Panel("one", ("", "rank"), STREAM), Panel("all", ("",), log="y")),
    by_rank("r", "R.", Ranks("s/{place}")),
    density("h", "H.", "h/{place}", x="value"),
    cloud("c", "C.", "_c", color="position"),
    heatmap("m", "M.", "_m", x="token", y="token"),
)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.name)
def test_every_kind_of_figure_draws(figure: Figure) -> None:
    rng = np.random.default_rng(0)
    blocks = [Place("q", 0), Place("q", 1), Place("k", 0)]
    edges = np.linspace(-2, 2, 9)
    payloads: Any = {
        "s/{place}": {p: Spectrum(np.arange(9, 0, -1.0), null=np.ones(9)) for p in blocks},
        "h/{place}": {p: Sample(edges, rng.random(8), null=np.ones(8)) for p in blocks},
        "_c": {p: Cloud(rng.random((20, 2)), rng.random(20), ("a", "b")) for p in blocks},
        "_m": {p: Map(rng.random((3, 4)), rows=("a", "b", "c")) for p in blocks},
    }
    one = finding(payloads=payloads, figures=(figure,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (picture,) = one.pictures
        drawn = picture.draw()
        drawn.canvas.draw()
    assert all(axes.has_data() for axes in drawn.axes if axes.axison)
    assert not replace(one, series={}, payloads={}).pictures
    assert "s/q/01" in one.arrays
    assert not any(key.startswith("_") for key in one.arrays)
