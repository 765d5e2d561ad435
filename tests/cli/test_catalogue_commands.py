"""Item ids from a file to ranks, by the commands: no tokenizer is there to be loaded."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.cli.main import main


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 sequences of 30 items, each of which follows the one before it."""
    place, draw = tmp_path_factory.mktemp("clicks"), random.Random(0)
    rows = [(draw.randrange(30), draw.randint(1, 12)) for _ in range(200)]
    lines = [json.dumps({"items": [(a + i) % 30 for i in range(n)]}) for a, n in rows]
    (place / "clicks.jsonl").write_text("\n".join(lines))
    arguments = ["--input", str(place / "clicks.jsonl"), "--item_field", "items"]
    output = ["--output", str(place / "data"), "--validation_fraction", "0.1"]
    assert main(["prepare", *arguments, *output]) in (0, None)
    return place / "data"


def test_from_a_run_to_ranks(
    clicks: Path,
    dataset: Path,
    run_arguments_in: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "runs/run"
    words = run_arguments_in(
        *(tmp_path / "runs", "run", "--model.optimizer.table", "lazy"),
        *("--data.path", str(clicks), "--model.optimizer.lr", "0.02", "--trainer.max_steps", "30"),
        *("--trainer.val_check_interval", "30", "--samples.every_n_steps", "10"),
    )
    assert main(["pretrain", *words]) in (0, None)
    out = capsys.readouterr().out
    assert f"headless evaluate --model {run} --tasks catalogue:{clicks}" in out
    assert "bits per byte" not in out
    assert not {"tokenizer", "samples.jsonl"} & {path.name for path in run.iterdir()}
    export = tmp_path / "export"
    assert main(["export", "--checkpoint", str(run), "--output", str(export)]) in (0, None)
    assert "training sequences of item ids" in (export / "README.md").read_text()
    assert "AutoTokenizer" not in (export / "README.md").read_text()
    assert json.loads((export / "config.json").read_text())["eos_token_id"] == 30
    task = ["--tasks", f"catalogue:{clicks}"]
    for model, *more in ((run,), (run, "--index", "exact"), (export,)):
        assert main(["evaluate", "--model", str(model), *task, *more]) in (0, None)
    lines = [*(run / "evaluations.jsonl").read_text().splitlines()]
    lines += (export / "evaluations.jsonl").read_text().splitlines()
    exact, found, exported = map(json.loads, lines)
    assert exact["metrics"] == found["metrics"] == exported["metrics"]
    assert exact["metrics"]["hr@5"] > 0.5  # by chance 0.17
    assert exact["settings"]["num_items"] == 30
    assert exact["data_sha256"] != found["data_sha256"]  # not the same task
    for arguments, line in {
        ("generate", "--model", str(run), "--prompt", "hi"): "reads no text",
        ("validate", str(run), "--data.path", str(dataset)): "the checkpoint has 31 ids",
        ("evaluate", "--model", str(run), "--tasks", f"text:{clicks}"): f"catalogue:{clicks}",
        ("evaluate", "--model", str(run), "--tasks", f"text:{export}/README.md"): "reads no text",
    }.items():
        assert main([*arguments]) == 2
        assert line in capsys.readouterr().err
    assert main(["neighbors", "--model", str(run), "--token_id", "7", "--k", "3"]) in (0, None)


def test_a_model_of_text_is_not_asked_for_items(
    clicks: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, line in ((clicks / "lost", "is not a prepared"), (dataset, "holds text, not item")):
        assert main(["evaluate", "--model", "none", "--tasks", f"catalogue:{source}"]) == 2
        assert line in capsys.readouterr().err
