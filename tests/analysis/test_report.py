"""Findings as a page, as JSON and as figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.report import as_json, check_output, write_report
from headless.errors import HeadlessError


def draw() -> Any:
    from headless.pages.figures import drawing_style, new_figure

    with drawing_style():
        figure = new_figure(4, 3)
        figure.subplots().plot([1, 2, 3], [1, 4, 9])
    return figure


def finding(name: str, agrees: bool | None = True) -> Finding:
    return Finding(
        name=name,
        title=f"The {name}",
        about="What it is, with `code` & <angle brackets>.",
        answer="It is 0.5 here.",
        scalars={f"{name}/a": 0.5, f"{name}/b": float("nan")},
        arrays={"x": np.arange(3), "y": np.array([1.0, np.inf]), "big": np.zeros(10_000)},
        pictures=(Picture(f"{name}-line", "A line.", draw),),
        claims=(Claim("Somebody 2020", "It grows.", agrees, "slope 2, at least 1"),),
    )


def test_everything_is_written(tmp_path: Path) -> None:
    findings = [finding("cone"), finding("helix", None), finding("tail", False)]
    page = write_report("demo", findings, tmp_path / "out", about=[("model", "gpt2 2 x 8")])
    text = page.read_text()
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")  # self-contained
    assert "Of 3 reported findings 2 could be asked of this model; it agrees with 1" in text
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
