"""The table in a terminal: every number whole at any width."""

from pathlib import Path

import pytest
from synthetic_runs import edit_config, edit_json, write_run
from test_finetunings import write_finetuning

from headless.reports.compare import Comparison, compare
from headless.reports.headline import headline
from headless.reports.terminal import show

pytestmark = pytest.mark.usefixtures("without_figures")
LONG = "cross-entropy with a label that goes on and on, untied, with a transform, and z-loss"


def comparison_of(root: Path, recipes: int) -> Comparison:
    """Recipes of two seeds each, that differ in a rate; the first one's label is a long one."""
    paths = []
    for number in range(recipes):
        for seed in (1, 2):
            run = write_run(root, "headless", seed, name=f"r{number}-{seed}", steps=50)
            edit_config(run, "model.optimizer.lr", 0.001 * (1 + number))
            edit_json(run / "summary.json", objective=LONG if number == 0 else "headless (CWT)")
            paths.append(run)
    return compare(paths, output=root / "out")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("recipes", [2, 4, 6])
def test_it_fits_the_terminal(
    tmp_path: Path,
    recipes: int,
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    comparison = comparison_of(tmp_path, recipes)
    show(comparison)
    text = capsys.readouterr().out
    table, _, _ = text.partition("warning: ")
    assert max(map(len, table.splitlines())) <= width
    assert "…" not in table
    columns, rows = headline(comparison.groups).cells()
    for place, column in enumerate(columns[1:], start=1):
        lines = [line for line in table.splitlines() if line.startswith(f"{column.name} ")]
        shown = " ".join(lines)
        for row in rows:
            assert f"{row[place].text} {row[place].detail}".strip() in shown
    words = table.split()
    for group in comparison.groups:
        assert set(group.label.replace(",", " ").split()) <= set(
            " ".join(words).replace(",", " ").split()
        )


def test_two_recipes_are_one_table_and_six_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = []
    for recipes in (2, 6):
        show(comparison_of(tmp_path / str(recipes), recipes))
        lines = capsys.readouterr().out.splitlines()
        counts.append(sum(line.startswith("nll ") for line in lines))
    assert counts[0] == 1
    assert 1 < counts[1] <= 3


def test_scores_of_fine_tunings_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "a.old-1"):
        write_finetuning(tmp_path / "runs" / name)
    show(compare([tmp_path / "runs"], output=tmp_path / "out"))
    text = capsys.readouterr().out
    assert "movies: test scores, 40 examples" in text
    (line,) = [line for line in text.splitlines() if line.startswith("accuracy")]
    assert "71.0 ± 2.5" in line
    assert "52.5" in line
    assert "a.old-1 was moved aside" in " ".join(text.split())
