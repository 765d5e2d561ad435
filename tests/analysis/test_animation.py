"""What moves over checkpoints is the model: axes, rows and directions stay."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted import gather, gaussian, states_lab, weights_lab
from test_latents import statistics

from headless.analysis.over_training import films, frame_steps, over_training, together
from headless.analysis.places.latents import latents
from headless.analysis.record import Figure, Finding
from headless.analysis.shape.anisotropy import anisotropy
from headless.analysis.shape.cone import cone
from headless.analysis.shape.outliers import FRAMES, outliers
from headless.analysis.states.capture import Point
from headless.analysis.weights.tables import tables

STEPS = (0, 10, 100)


class _Table(torch.nn.Module):
    """A model of which an embedding table is all that is looked at."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(table)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table


def checkpoint(step: int) -> list[Finding]:
    """A model whose embeddings and stream point ever more one way."""
    shift = torch.eye(16)[3] * np.log10(1 + step)
    table = torch.randn(300, 16, generator=torch.Generator().manual_seed(1)) + shift
    stream = {
        Point(c, i): gather(gaussian(6, 9, 16, seed=i) + i * shift)
        for c, i in (("embed", -1), ("post", 0), ("post", 1), ("norm_f", 2))
    }
    return [
        tables(weights_lab(_Table(table))),
        cone(states_lab(stream, {"embedding": table, "head": table + 1}, last_states=table)),
        anisotropy(states_lab(stream)),
        latents(states_lab(statistics(depth=np.log10(1 + step)))),
    ]


@pytest.fixture(scope="module")
def by_step() -> dict[int, list[Finding]]:
    return {step: checkpoint(step) for step in STEPS}


def named(by_step: dict[int, list[Finding]]) -> dict[str, Any]:
    return {film.name: film for film in films(by_step)}


def limits(figure: Any) -> list[Any]:
    return [(panel.get_xlim(), panel.get_ylim()) for panel in figure.axes]


def test_every_film_has_a_frame_a_checkpoint_and_one_set_of_axes(
    by_step: dict[int, list[Finding]],
) -> None:
    made = list(films(by_step))
    assert [film.name.removeprefix("film-") for film in made] == [
        "spectra", "cone-angles", "cone", "anisotropy", "latents", "latents-stream",
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for film in made:
            assert film.frames == ("step 0", "step 10", "step 100")
            figures = [film.draw(k) for k in range(3)]
            for figure, label in zip(figures, film.frames, strict=True):
                figure.canvas.draw()
                assert figure._suptitle.get_text() == label
            assert limits(figures[0]) == limits(figures[1]) == limits(figures[2]), film.name
            assert len({tuple(figure.get_size_inches()) for figure in figures}) == 1


def test_the_cone_is_seen_along_the_last_checkpoint_s_directions(
    by_step: dict[int, list[Finding]],
) -> None:
    film = named(by_step)["film-cone"]
    last = by_step[100][1].arrays
    for k, step in enumerate(STEPS):
        panel = film.draw(k).axes[0]
        drawn = np.asarray(panel.collections[0].get_offsets())
        expected = by_step[step][1].arrays["embedding/vectors"] @ last["embedding/axes"][:2].T
        # Dots are drawn in one random order.
        np.testing.assert_allclose(sorted(drawn.tolist()), sorted(expected.tolist()), rtol=1e-6)
    means = [film.draw(k).axes[0].collections[0].get_offsets()[:, 0].mean() for k in range(3)]
    assert abs(means[0]) < 0.3  # no cone before training
    assert means == sorted(means)
    assert means[2] == pytest.approx(np.log10(101), abs=0.3)


def test_latents_keep_the_last_checkpoint_s_components(by_step: dict[int, list[Finding]]) -> None:
    film = named(by_step)["film-latents-stream"]
    told = []
    for k in range(3):
        panel = film.draw(k).axes[1]
        # Dots are drawn in one random order; their colours tell which is which.
        shades = panel.collections[0].get_facecolor()[:, :3].mean(axis=1)
        x = np.asarray(panel.collections[0].get_offsets())[:, 0]
        told.append(abs(np.corrcoef(x, shades)[0, 1]))
    assert told[0] < 0.5 < 0.6 < told[2]  # the stream moves along depth only where it was trained


def test_what_is_missing_somewhere_has_no_film(by_step: dict[int, list[Finding]]) -> None:
    some = {0: by_step[0][2:], 10: by_step[10][2:3], 100: by_step[100]}
    made = named(some)
    assert list(made) == ["film-anisotropy", "film-latents", "film-latents-stream"]
    assert made["film-latents"].frames == ("step 0", "step 100")  # two checkpoints have it
    bare = {
        step: [replace(f, series={}, payloads={}) for f in findings if f.name != "table_spectra"]
        for step, findings in by_step.items()
    }
    assert not list(films(bare))
    assert not over_training(bare).pictures


def test_a_figure_over_checkpoints_has_common_limits() -> None:
    from headless.pages.figures import drawing_style, new_figure

    def draw(finding: Finding) -> Any:
        step = int(finding.answer)
        with drawing_style():
            figure = new_figure(3, 2)
            figure.subplots().plot([0, step + 1], [-step, step])
        return figure

    figures = (Figure("a", "Lines.", draw, film=("film-a", "A")), Figure("b", "Lines.", draw))
    found = {step: [Finding({}, answer=str(step), figures=figures)] for step in STEPS}
    (film,) = films(found)
    assert film.name == "film-a"
    drawn = [film.draw(k) for k in range(3)]
    assert limits(drawn[0]) == limits(drawn[2])
    (_, (low, high)) = limits(drawn[0])[0]
    assert low <= -100 < 100 <= high


def test_few_of_many_checkpoints_are_shown() -> None:
    many = [0, *range(10, 10_001, 10)]
    shown = frame_steps(many)
    assert (shown[0], shown[1], shown[-1]) == (0, 10, 10_000)
    assert len(shown) <= 24
    ratios = np.diff(np.log(shown[4:]))
    assert ratios.max() < 3 * ratios.mean()
    assert frame_steps([3, 1, 2]) == [1, 2, 3]


def test_over_training_draws_everything(by_step: dict[int, list[Finding]]) -> None:
    course = over_training(by_step)
    names = [picture.name.removeprefix("over-training-") for picture in course.pictures]
    assert names == ["table-spectra", "cone", "anisotropy", "latents"]
    assert len(course.animations) == 6
    assert course.scalars["over_training/anisotropy/post/01/change"] == pytest.approx(
        by_step[100][2].scalars["anisotropy/post/01"] - by_step[0][2].scalars["anisotropy/post/01"]
    )
    np.testing.assert_array_equal(course.arrays["steps"], STEPS)
    assert len(course.arrays["anisotropy/post/01"]) == len(STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in course.pictures:
            picture.draw().canvas.draw()
    panel = course.pictures[2].draw().axes[0]
    assert len(panel.get_lines()) == 2  # a line a block


def test_blocks_share_a_panel() -> None:
    found = {f"a/post/{b:02d}/x": [float(b)] for b in range(3)} | {"a/y": [7.0], "a/p95": [8.0]}
    assert together(found) == {
        "a/post/*/x": [[0.0], [1.0], [2.0]],
        "a/y": [[7.0]],
        "a/p95": [[8.0]],
    }


def test_the_stream_through_the_blocks_has_one_scale() -> None:
    states = {Point("post", i): gather(gaussian(3, 70, 80, seed=i) * 10.0**i) for i in range(3)} | {
        Point("embed", -1): gather(gaussian(3, 70, 80))
    }
    (film,) = outliers(states_lab(states)).animations
    assert film.frames == ("block 0", "block 1", "block 2")
    images = [film.draw(k).axes[0].collections[0] for k in range(3)]
    assert {image.get_clim() for image in images} == {(-1, 1)}
    drawn = [np.asarray(image.get_array()).reshape(64, 64) for image in images]
    expected = states[Point("post", 2)].example_ED[:64, :64].double().numpy()
    np.testing.assert_array_equal(np.sign(drawn[2]), np.sign(expected))
    # Full colour for the hundredth part of the last block; the same value has one everywhere.
    assert np.mean(np.abs(drawn[2][1:]) < 1) == pytest.approx(0.99, abs=0.001)
    values = [states[Point("post", k)].example_ED[:64, :64].double().numpy() for k in range(3)]
    order = np.argsort(np.concatenate([x.ravel() for x in values]))
    assert (np.diff(np.concatenate([x.ravel() for x in drawn])[order]) >= 0).all()
    red, blue = images[2].cmap(0.05), images[2].cmap(0.95)
    assert red[0] > red[2]  # negative
    assert blue[2] > blue[0]
    (film,) = outliers(
        states_lab({Point("post", i): states[Point("post", 0)] for i in range(90)})
    ).animations
    assert len(film.frames) == FRAMES
