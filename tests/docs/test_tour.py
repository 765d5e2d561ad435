"""docs/tour.ipynb, run as a notebook: every cell works, and what its text says is so."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def outputs_of(notebook: Any) -> list[tuple[str, dict[str, str]]]:
    """The source of each cell of code, with what it showed, by type."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found: dict[str, str] = {}
            for output in cell.outputs:
                data = output.get("data", {"text/plain": output.get("text", "")})
                for kind, text in data.items():
                    found[kind] = found.get(kind, "") + text
            shown.append((cell.source, found))
    return shown


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, str]]]:
    notebook = nbformat.read(TOUR, as_version=4)
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("tour"))}}
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources=place).execute()
    return outputs_of(notebook)


def shown_by(cells: list[tuple[str, dict[str, str]]], part: str) -> dict[str, str]:
    (found,) = [output for source, output in cells if part in source]
    return found


def test_both_come_near_the_entropy_and_not_below(executed: list[Any]) -> None:
    bits = ast.literal_eval(shown_by(executed, "axes.axhline")["text/plain"].split("<Figure")[0])
    assert bits["entropy"] < bits["softmax"] < 1.1 * bits["entropy"]
    assert bits["entropy"] < bits["headless"] < 1.1 * bits["entropy"]


def test_the_models_next_words_are_those_of_the_text(executed: list[Any]) -> None:
    text = shown_by(executed, "probability.topk")["text/plain"]
    pairs = re.findall(r"([\d.]+)%, true +([\d.]+)%", text)
    assert len(pairs) == 4
    for model, true in pairs:
        assert float(model) == pytest.approx(float(true), abs=8)


def test_results_show_themselves(executed: list[Any]) -> None:
    for verb in ("headless.evaluate", "headless.compare"):
        assert "<table" in shown_by(executed, verb)["text/html"]
    assert "mean cosine is between" in shown_by(executed, "headless.analyze")["text/html"]
    assert shown_by(executed, ".draw()")["image/png"]


def test_the_export_says_the_same(executed: list[Any]) -> None:
    text = shown_by(executed, "model.export")["text/plain"]
    assert float(re.findall(r"by (\S+) at most", text)[0]) < 1e-4


def test_what_is_stored_is_whole() -> None:
    """The page of the documentation shows it: no cell without its output, no error, no warning."""
    notebook = nbformat.read(TOUR, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert len(outputs) >= 10
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
