"""Films: the same bytes every time, every frame there, and pages that show them without scripts."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest

from headless.pages.figures import SURFACE, drawing_style, new_figure, render_svg, step_axis
from headless.pages.film import Film, make_film
from headless.pages.page import Page


def frame(k: int, width: float = 3.0) -> Any:
    with drawing_style():
        figure = new_figure(width, 2.0)
        panel = figure.subplots()
        panel.bar([0, 1, 2], np.roll([1, 2, 3], k))
        panel.set_ylim(0, 4)
    return figure


def film(count: int = 3) -> Film:
    return make_film(map(frame, range(count)), [f"step {k}" for k in range(count)], seconds=0.5)


def test_the_gif_holds_every_frame_for_its_time() -> None:
    from PIL import Image

    made = film()
    picture: Any = Image.open(io.BytesIO(made.gif()))
    assert (picture.n_frames, picture.size) == (3, made.size)
    assert picture.info["loop"] == 0
    seen = []
    for k in range(3):
        picture.seek(k)
        assert picture.info["duration"] == (1500 if k == 2 else 500)
        seen.append(np.asarray(picture.convert("RGB")).astype(int))
        whole = np.asarray(made.frames[k].convert("RGB")).astype(int)
        assert np.array_equal(seen[-1], whole)
    assert all((a != b).any() for a, b in zip(seen, seen[1:], strict=False))


def test_frames_are_what_was_drawn_on_the_page_s_paper() -> None:
    from PIL import Image

    made = film(1)
    (address,) = made.addresses()
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    paper = tuple(int(SURFACE[i : i + 2], 16) for i in (1, 3, 5))
    assert picture.getpixel((0, 0)) == paper
    colours = {c for _, c in picture.getcolors(1 << 20) or ()}
    assert any(abs(r - 0x1F) < 24 and abs(g - 0x77) < 24 and b > 150 for r, g, b in colours)  # bars


def test_the_same_figures_are_the_same_bytes() -> None:
    assert film().gif() == film().gif()
    assert film().addresses() == film().addresses()


def test_a_page_with_films_needs_no_script_and_no_network() -> None:
    page = Page("t")
    page.film(film(3), "first <film>")
    page.film(film(5), "second", wide=True)
    html = page.render()
    assert html == page.render()
    assert "<script" not in html
    assert set(re.findall(r'src="([^,]+),', html)) == {"data:image/png;base64"}
    assert html.count("<img") == 8
    names = re.findall(r'<input type="radio" name="(film-\d)"', html)
    assert (names.count("film-1"), names.count("film-2")) == (4, 6)  # play, and one a frame
    # A rule for each frame of the longest film stops the strip at it.
    assert re.findall(r"nth-of-type\((\d)\):checked ~ .window .strip { --at: (\d);", html) == [
        (str(k + 2), str(k)) for k in range(5)
    ]
    assert "prefers-reduced-motion" in html
    assert "Figure 2.</b> second" in html
    assert "first &lt;film&gt;" in html
    assert "film-1" not in Page("t").render()


def test_many_marks_become_pixels_and_few_stay_paths() -> None:
    def scatter(count: int) -> str:
        with drawing_style():
            figure = new_figure(3, 2)
            x = np.random.default_rng(0).standard_normal((2, count))
            figure.subplots().scatter(*x, s=3)
        return render_svg(figure)

    few, many = scatter(100), scatter(20_000)
    assert "<image" not in few
    assert "<image" in many
    assert len(many) < 150_000
    assert many == scatter(20_000)
    assert set(re.findall(r'href="([^"#]{0,15})', many)) <= {"", "data:image/png;"}


def test_steps_lie_on_a_logarithmic_axis_with_step_0_at_its_left() -> None:
    with drawing_style():
        figure = new_figure(4, 2)
        panel = figure.subplots()
        step_axis(panel, [0, 10, 100, 1000])
        figure.canvas.draw()
        labels = [label.get_text() for label in panel.get_xticklabels()]
        assert labels == ["0", "10", "100", "1k"]
        zero, ten, hundred, thousand = panel.transData.transform(
            [(s, 0) for s in (0, 10, 100, 1000)]
        )[:, 0]
        left, right = panel.bbox.x0, panel.bbox.x1
        assert left < zero < ten < thousand < right
        assert thousand - hundred == pytest.approx(hundred - ten)
        late = new_figure(4, 2).subplots()
        step_axis(late, [160, 320])
        late.figure.canvas.draw()
    assert late.get_xlim()[0] > 100
    assert [label.get_text() for label in late.get_xticklabels()] == ["160", "320"]
