"""`headless analyze`: from a run to a page, and what users get wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headless.analysis.laboratory import select
from headless.cli.main import main
from headless.training.assembly import build
from headless.training.pretrain import fit


@pytest.fixture
def run(run_arguments: Callable[..., list[str]]) -> Path:
    options = ("--model.backbone.hidden_size", "32", "--model.backbone.num_hidden_layers", "4")
    return fit(build([*run_arguments("run"), *options]))


def test_a_run_to_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "inside"
    arguments = ["analyze", "--model", str(run), "--output", str(output), "--tokens", "2048"]
    arguments += ["--formats", "[svg]"]  # as long again for each more
    assert main(arguments) == 0
    out = capsys.readouterr().out
    numbers = json.loads((output / "analysis.json").read_text())
    found = {finding["name"] for finding in numbers["findings"]}
    assert {"table_spectra", "weight_spectra", "anisotropy", "outliers"} <= found
    assert "in this model and in neither of its two random twins (its own weights before" in out
    assert numbers["random_twin"].startswith("its own weights before training")
    assert 0 <= numbers["tally"]["alone"] <= numbers["tally"]["agrees"]
    left_out = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(left_out) <= 3, left_out
    assert all(
        any(value is not None for value in f["scalars"].values()) for f in numbers["findings"]
    )
    page = (output / "analysis.html").read_text()
    assert page.count("<svg") == len(list((output / "figures").glob("*.svg")))
    assert main(arguments) == 2
    assert "--overwrite true" in capsys.readouterr().err


@pytest.mark.usefixtures("blank_figures")
def test_one_analysis_of_an_export_without_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "export"
    assert main(["export", "--checkpoint", str(run), "--output", str(export)]) == 0
    arguments = ["analyze", "--model", str(export), "--output", str(tmp_path / "weights")]
    assert main([*arguments, "--analyses", "weights", "--random_twin", "false"]) == 0
    assert "random weights were not asked" in capsys.readouterr().out
    found = json.loads((tmp_path / "weights/analysis.json").read_text())["findings"]
    assert "table_spectra" in {finding["name"] for finding in found}
    assert main([*arguments, "--analyses", "norms", "--overwrite", "true"]) == 2
    assert "no text was given" in capsys.readouterr().err


def test_bad_input(
    run: Path, tmp_path: Path, text_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headless.data.prepare import prepare

    prepare([str(text_files)], tmp_path / "other", vocab_size=300, validation_fraction=0.1)
    for arguments, message in (
        (["--analyses", "cones"], f"there are {', '.join(select())}"),
        (["--data", str(tmp_path / "other")], "another tokenizer"),
        (["--length", "400"], "positions"),
        (["--tokens", "10"], "holds no two sequences"),
        (["--blocks", "[7]"], "the model has blocks 0 to"),
    ):
        model = ["analyze", "--model", str(run), "--output", str(tmp_path / "out")]
        assert main([*model, *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("blank_figures")
def test_over_the_kept_checkpoints(
    run_arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--checkpoint.keep", "true", "--checkpoint.every_n_steps", "4")
    path = fit(build([*run_arguments("kept"), *options, "--laboratory.enabled", "true"]))
    arguments = ["analyze", "--model", str(path), "--tokens", "512", "--steps", "all"]
    arguments += ["--random_twin", "false"]
    assert main([*arguments, "--analyses", "[anisotropy, frequency, weights]"]) == 0
    numbers = json.loads((path / "analysis/analysis.json").read_text())
    course = numbers["findings"][0]
    assert course["name"] == "over_training"
    assert course["arrays"]["steps"] == [0, 4, 8, 12]  # the first weights are kept
    points = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    logged = {k: v for point in points if not point["progress/step"] for k, v in point.items()}
    for name in ("anisotropy/embedding", "weight_spectra/q/alpha"):
        assert course["arrays"][name][0] == pytest.approx(logged[f"analysis/{name}"], rel=1e-4)
    at_end = {k: v for f in numbers["findings"][1:] for k, v in f["scalars"].items()}
    assert course["arrays"]["frequency/embedding/moved_10"][0] == 0
    first, *updates = course["arrays"]["frequency/embedding/update_10"]
    assert first is None  # there is no checkpoint before
    assert min(updates) > 0
    before, last = (
        torch.load(path / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        for name in ("step-00000008", "last")
    )
    moved_VD = last["backbone.embed_in.weight"] - before["backbone.embed_in.weight"]
    moved_V = moved_VD.norm(dim=1)[last["unigram_counts"] > 0] / 4
    groups = [course["arrays"][f"frequency/embedding/update_{k:02d}"][-1] for k in range(1, 11)]
    assert sum(groups) / 10 == pytest.approx(float(moved_V.mean()), rel=0.02)
    followed = [name for name in course["arrays"] if name != "steps"]
    assert len(followed) > 10
    for name in followed:
        assert course["arrays"][name][-1] == pytest.approx(at_end[name])
    assert any(course["arrays"][name][0] != course["arrays"][name][-1] for name in followed)
    capsys.readouterr()
    (path / "checkpoints/step-00000004.ckpt").unlink()
    (path / "checkpoints/step-00000008.ckpt").unlink()
    assert main([*arguments, "--overwrite", "true"]) == 2
    assert "--checkpoint.keep true" in capsys.readouterr().err


def test_two_runs_side_by_side(run_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    runs = []
    for objective in ("CrossEntropy", "ContrastiveWeightTying"):
        path = fit(build(run_arguments(objective, objective=objective)))
        arguments = ["analyze", "--model", str(path), "--tokens", "512", "--random_twin", "false"]
        assert main([*arguments, "--analyses", "[anisotropy]"]) == 0
        runs.append(str(path))
    assert main(["compare", *runs, "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report/report.html").read_text()
    assert "Inside the models" in page
    assert "CrossEntropy/analysis/analysis.html" in page
