"""The insides of models side by side: analyses of any version, whatever they hold."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import write_run

from headless.pages.page import Page
from headless.reports import inside
from headless.reports.groups import Group, read_groups
from headless.reports.inside import (
    add_inside,
    by_block,
    disputed,
    finding_array,
    last_spectrum,
    scalar,
)


def analysis(
    depth: int = 4, width: int = 24, cosine: float = 0.3, **changes: Any
) -> dict[str, Any]:
    """What `headless analyze` writes, in small."""
    generator = np.random.default_rng(round(100 * cosine))
    spectrum = np.sort(generator.random(width))[::-1] + 0.1
    posts = range(depth)
    findings = [
        {
            "name": "table_spectra",
            "title": "Singular values",
            "answer": "One of 24.",
            "scalars": {"table_spectra/embedding/effective_rank": 20 * (1 - cosine)},
            "arrays": {
                "embedding/raw": spectrum.tolist(),
                "embedding/shuffled": [1.0] * width,
                "names": ["a", "b"],
            },
            "claims": [],
        },
        {
            "name": "anisotropy",
            "title": "How cone-shaped?",
            "answer": f"It is {cosine}.",
            "scalars": {
                **{f"anisotropy/post/{b:02d}": cosine + 0.1 * b for b in posts},
                **{f"anisotropy/post/{b:02d}/shuffled": 0.0 for b in posts},
                "anisotropy/norm_f": None,
                "anisotropy/embedding": cosine,
            },
            "arrays": {},
            "claims": [
                {"source": "A 2019", "text": "it is a cone.", "agrees": cosine > 0.2,
                 "criterion": f"{cosine}, above 0.2"},
                {"source": "B 2020", "text": "both agree", "agrees": True, "criterion": "1"},
                {"source": "Us", "text": "our own", "agrees": cosine > 0.2, "criterion": "1",
                 "kind": "own"},
                {"source": "C 2021", "text": "not asked of all",
                 "agrees": True if cosine > 0.2 else None, "criterion": "-"},
            ],
        },
        {
            "name": "cone",
            "title": "The cone",
            "answer": "",
            "scalars": {"cone/hidden/angle": 60.0},
            "arrays": {"hidden/angle_density": [0.0] * 30 + [1 / 60] * 30 + [0.0] * 30},
        },
        {
            "name": "covariance_spectra",
            "title": "Covariance",
            "scalars": {f"covariance_spectra/post/{b:02d}/entropy_rank": 9.0 + b for b in posts},
            "arrays": {
                f"post/{b:02d}/eigenvalues": (spectrum**2 * (b + 1)).tolist() for b in posts
            },
            "claims": [],
        },
        {
            "name": "norms",
            "title": "Norms",
            "answer": "x",
            "scalars": {f"norms/post/{b:02d}/rest": 3.0 + b for b in posts},
            "arrays": {"by_position": [9.0, None, 3.0]},
            "claims": [],
        },
    ]  # fmt: skip
    about = {"text": "data/demo, 16 sequences of 128 tokens"}
    return {"format": 1, "headless": "0.1.0", "about": about, "findings": findings} | changes


def groups_of(root: Path, *analyses: dict[str, Any] | None) -> list[Group]:
    """A run for each, of two recipes in turn where there are two, else of more widths."""
    paths = []
    for index, found in enumerate(analyses):
        kind = ("cross_entropy", "headless")[index % 2]
        path = write_run(root, kind, seed=1 + index // 2, name=f"run{index}")
        if found is not None:
            (path / "analysis").mkdir()
            (path / "analysis/analysis.json").write_text(json.dumps(found))
        paths.append(path)
    return read_groups(paths)


def render(groups: list[Group]) -> str:
    page = Page("t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_inside(page, groups, groups[0].first.directory.path.parent / "report")
    return page.render()


def test_two_models(tmp_path: Path) -> None:
    html = render(groups_of(tmp_path, analysis(cosine=0.1), analysis(cosine=0.6)))
    assert html.count("<svg") == 3
    for run in ("run0", "run1"):
        link = f'<a href="../{run}/analysis/analysis.html">{run}/analysis/analysis.html</a>'
        assert link in html
    text = re.sub(r"<[^>]+>", " ", html)
    assert "Where the models differ" in text
    assert "It is a cone" in text
    assert "0.1, above 0.2" in text
    assert "both agree" not in text.lower()  # they do
    assert "our own" not in text.lower()  # it is no finding of the literature
    assert "not asked of all" not in text.lower()  # one cannot be asked
    assert "different texts" not in text


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_any_number_of_groups(tmp_path: Path, count: int) -> None:
    paths = []
    for index in range(count):
        path = write_run(tmp_path, "headless", name=f"run{index}")
        config = path / "config.yaml"
        config.write_text(
            config.read_text().replace("hidden_size: 192", f"hidden_size: {8 + index}")
        )
        (path / "analysis").mkdir()
        found = analysis(depth=2 + index, width=8 + index, cosine=0.1 * index)
        (path / "analysis/analysis.json").write_text(json.dumps(found))
        paths.append(path)
    groups = read_groups(paths)
    assert len(groups) == count
    assert "Inside the models" in render(groups)


def test_several_seeds_are_a_mean_and_thin_lines(tmp_path: Path) -> None:
    found = [analysis(cosine=c) for c in (0.1, 0.6, 0.15, 0.7)]
    groups = groups_of(tmp_path, *found)
    assert [len(group.runs) for group in groups] == [2, 2]
    figure = inside.depth(groups)
    lines = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 1.6]
    np.testing.assert_allclose(lines[0].get_ydata(), [0.125, 0.225, 0.325, 0.425])
    text = re.sub(r"<[^>]+>", " ", render(groups))
    assert "0.125 ±" in text


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    assert "Inside" not in render(groups_of(tmp_path / "none", None, None))
    html = render(groups_of(tmp_path / "one", analysis(), None))
    assert "Not analysed, so not here" in html
    small = analysis(findings=analysis()["findings"][1:2], headless="9.9", about={"text": "other"})
    html = render(groups_of(tmp_path / "two", analysis(), small))
    assert "different texts" in html
    assert "several versions" in html
    empty = {"format": 1, "findings": [{"name": "x"}]}
    assert "Inside the models" in render(groups_of(tmp_path / "three", empty, empty))


def test_reading(tmp_path: Path) -> None:
    (group, other) = groups_of(tmp_path, analysis(), None)
    run = group.first
    along = np.asarray(by_block(run, "anisotropy/post"))
    np.testing.assert_allclose(along, [0.3, 0.4, 0.5, 0.6])
    assert by_block(run, "anisotropy/mid") is None
    assert by_block(other.first, "anisotropy/post") is None
    assert scalar(run, "anisotropy/norm_f") is None
    assert scalar(run, "cone/hidden/angle") == 60.0
    assert finding_array(run, "table_spectra", "names") is None
    assert np.isnan(np.asarray(finding_array(run, "norms", "by_position"))[1])
    spectrum = np.asarray(last_spectrum(run))
    assert spectrum[0] == pytest.approx(
        4 * np.asarray(finding_array(run, "table_spectra", "embedding/raw"))[0] ** 2
    )
    assert disputed([group, other]) == []
