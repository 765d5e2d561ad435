"""Findings as a page, as JSON and as figures."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import plain

from headless.analysis.record import Animation, Figure, Finding
from headless.analysis.record import Answer as Claim
from headless.analysis.report import as_json, check_output, numbers_text, write_report
from headless.analysis.tables import SOURCES, by_block, source_of
from headless.errors import HeadlessError


def draw(*_: Any) -> Any:
    from headless.pages.figures import drawing_style, new_figure

    with drawing_style():
        figure = new_figure(4, 3)
        figure.subplots().plot([1, 2, 3], [1, 4, 9])
    return figure


def finding(name: str, agrees: bool | None = True) -> Finding:
    return plain(
        name,
        title=f"The {name}",
        about="What it is, with `code` & <angle brackets>.",
        answer="It is 0.5 here.",
        scalars={f"{name}/a": 0.5, f"{name}/b": float("nan")},
        arrays={"x": np.arange(3), "y": np.array([1.0, np.inf]), "big": np.zeros(10_000)},
        figures=(Figure(f"{name}-line", "A line.", draw),),
        claims=(Claim("Somebody 2020", "It grows.", agrees, "slope 2, at least 1"),),
    )


def test_everything_is_written(tmp_path: Path) -> None:
    findings = [finding("cone"), finding("helix", None), finding("tail", False)]
    page = write_report("demo", findings, tmp_path / "out", about=[("model", "gpt2 2 x 8")])
    text = page.read_text()
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")  # self-contained
    assert "agrees with 1 of the 2 findings of the literature that could be asked" in text
    assert "random weights were not asked" in text
    assert "&lt;angle brackets&gt;" in text
    numbers = json.loads((tmp_path / "out/analysis.json").read_text())
    first = numbers["findings"][0]
    assert first["scalars"] == {"cone/a": 0.5, "cone/b": None}
    assert first["arrays"] == {"x": [0, 1, 2], "y": [1.0, None]}
    assert first["claims"][0]["agrees"] is True
    figures = {path.name for path in (tmp_path / "out/figures").iterdir()}
    assert figures == {f"{n}-line.{s}" for n in ("cone", "helix", "tail") for s in ("svg", "png")}


def test_again_in_the_same_place(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_report("first", [finding("cone")], output)
    with pytest.raises(HeadlessError, match="--overwrite true"):
        check_output(output, overwrite=False)
    check_output(output, overwrite=True)
    write_report("second", [finding("tail")], output)
    assert [p.name for p in sorted((output / "figures").iterdir())] == [
        "tail-line.png",
        "tail-line.svg",
    ]
    assert sorted(p.name for p in output.iterdir()) == ["analysis.html", "analysis.json", "figures"]
    (tmp_path / "file").touch()
    with pytest.raises(HeadlessError, match="is a file"):
        check_output(tmp_path / "file", overwrite=True)


def test_json_is_strict() -> None:
    json.dumps(as_json("x", [finding("cone")]), allow_nan=False)


def moving(name: str) -> Finding:
    film = Animation("film-x", "It moves.", ("a", "b"), lambda k: draw())
    return replace(finding(name), animations=(film,))


def test_a_film_is_a_file_and_stands_on_the_page(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    page = write_report("demo", [moving("cone")], tmp_path, report=lambda *what: told.append(what))
    assert (tmp_path / "figures/film-x.gif").read_bytes().startswith(b"GIF89a")
    text = page.read_text()
    assert text.count("data:image/png;base64") == 2
    assert text.index("A line.") < text.index("It moves.")
    numbers = json.loads((tmp_path / "analysis.json").read_text())
    assert numbers["findings"][0]["animations"] == ["film-x"]
    # A bar that never goes back: one picture, two frames, the page.
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_same_findings_are_the_same_bytes(tmp_path: Path) -> None:
    for place in ("one", "two"):
        write_report("demo", [moving("cone")], tmp_path / place, formats=("svg", "png", "pdf"))
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 6
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_claims_stand_by_source_and_lead_to_their_sections(tmp_path: Path) -> None:
    sources = {
        "Godey et al., Language models have cone-shaped heads (talk)": 0,
        "Godey, de la Clergerie and Sagot, talk": 0,
        "Conjecture 2023, Basic Facts about Language Model Internals": 1,
        "Ning and Rangaraju, arXiv 2511.21594": 2,
        "Ning and Rangaraju 2025": 2,
        "Gao et al. 2019": 3,
    }
    findings = []
    for number, source in enumerate(sources):
        claims = (Claim(source, f"claim {number}.", number != 1, "x"),)
        findings.append(replace(finding(f"f{number}"), claims=claims))
        assert source_of(claims[0]) == SOURCES[sources[source]][0]
    text = write_report("demo", findings, tmp_path).read_text()
    overview = text[: text.index("The f0</h2>")]
    assert "this model agrees with 1 of 2" in overview
    order = [overview.index(f"Claim {number}<") for number in range(len(sources))]
    assert order == sorted(order)
    for number in range(len(sources)):
        assert f'href="#finding-f{number}"' in overview
        assert f'id="finding-f{number}"' in text


def test_numbers_of_blocks_stand_in_one_row() -> None:
    scalars = {
        "norms/post/00/rest": 1.0,
        "norms/post/11/rest": 2.0,
        "norms/post/100/rest": 3.0,
        "norms/growth": 4.0,
        "latents/share/1": 5.0,
        "norms/alone/07/of/09": 6.0,
    }
    single, rows, blocks = by_block(scalars)
    assert rows == {"norms/post/*/rest": {"00": 1.0, "11": 2.0, "100": 3.0}}
    assert blocks == ["00", "11", "100"]
    assert list(single) == ["norms/growth", "latents/share/1", "norms/alone/07/of/09"]


def test_a_page_of_a_deep_model_stays_short(tmp_path: Path) -> None:
    scalars = {f"x/post/{b:02d}/{n}": float(b) for b in range(80) for n in range(100)}
    text = write_report("demo", [plain("x", scalars)], tmp_path).read_text()
    assert len(text) < 200_000
    assert "<code>x/<wbr>post/" in text
    assert "has the others" in text


def test_arrays_take_a_line_each_and_few_digits() -> None:
    long = plain("x", {}, {"y": np.array([1 / 3, np.nan]), "n": np.array(["a"])})
    text = numbers_text(as_json("t", [long]))
    assert "[0.3333333, null]" in text
    assert json.loads(text)["findings"][0]["arrays"] == {"y": [0.3333333, None], "n": ["a"]}


def test_a_full_disk_leaves_what_is_made_again_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stands in the way of the same command, wherever it was cut short."""
    output = tmp_path / "out"

    def fill(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("headless.analysis.report.build_page", fill)
        with pytest.raises(OSError, match="No space left"):
            write_report("demo", [finding("cone")], output)
    assert list(output.iterdir()) == []
    write_report("demo", [finding("cone")], output)
    (output / "analysis.html").unlink()  # killed before the last rename
    (output / ".figures-abc").mkdir()  # and an earlier one while it drew
    check_output(output, overwrite=False)
    write_report("demo", [finding("cone")], output)
    assert sorted(p.name for p in output.iterdir()) == ["analysis.html", "analysis.json", "figures"]


def test_figures_of_others_are_never_replaced(tmp_path: Path) -> None:
    drawing = tmp_path / "paper" / "figures" / "mine.svg"
    drawing.parent.mkdir(parents=True)
    drawing.write_text("<svg/>")
    for overwrite in (False, True):
        with pytest.raises(HeadlessError, match="has a figures that this command did not make"):
            check_output(tmp_path / "paper", overwrite)


def test_a_picture_is_laid_out_once_for_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from headless.pages.figures import new_figure

    done: list[Any] = []
    layout = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine,
        "execute",
        lambda self, figure: (done.append(figure), layout(self, figure))[1],
    )

    def draw(*_: Any) -> Any:
        figure = new_figure()
        figure.subplots(1, 2)
        return figure

    finding = Finding({}, name="a", title="A", figures=(Figure("a", "A.", draw),))
    write_report("x", [finding], tmp_path, formats=("svg", "png", "pdf"))
    assert len(done) == 1
