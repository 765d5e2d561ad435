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
    assert (picture.n_frames, picture.size) == (3, (made.width, made.height))
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


def test_what_is_no_film() -> None:
    with pytest.raises(ValueError, match="2 frames for 1 labels"):
        make_film([frame(0), frame(1)], ["a"])
    with pytest.raises(ValueError, match="0 frames"):
        make_film([], [])
    with pytest.raises(ValueError, match="frames of sizes"):
        make_film([frame(0), frame(0, 4.0)], ["a", "b"])


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
        x = step_axis(panel, [0, 10, 100, 1000])
        panel.plot(x, [1, 2, 3, 4])
    assert panel.get_xscale() == "log"
    assert x[1:].tolist() == [10, 100, 1000]
    assert x[0] == pytest.approx(1.0)  # as far from 10 as that from 100
    figure.canvas.draw()
    labels = [label.get_text() for label in panel.get_xticklabels()]
    assert labels == ["0", "10", "100", "1k"]
    low, high = panel.get_xlim()
    assert low < x[0]
    assert high > 1000
    with drawing_style():
        panel = new_figure(4, 2).subplots()
        assert step_axis(panel, [160, 320]).tolist() == [160, 320]
