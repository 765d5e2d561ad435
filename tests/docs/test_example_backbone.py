"""examples/my_backbone.py, a file outside the package: it learns and is opened again."""

import json
import sys
from pathlib import Path

import pytest

from headless.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_run_learns_with_it(
    run_arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    config = tmp_path / "own.yaml"
    config.write_text(
        "model: {backbone: {custom: my_backbone.Recurrent, extra: {width: 24, layers: 1}}}\n"
    )
    options = iter(run_arguments("own", "--trainer.max_steps", "30"))
    pairs = [(name, next(options)) for name in options]
    kept = [word for pair in pairs if not pair[0].startswith("--model.backbone") for word in pair]
    own = ["--import", "my_backbone", "--config", str(config), "--model.optimizer.lr", "1e-2"]
    assert main(["pretrain", *kept, *own]) == 0
    assert "headless generate" not in capsys.readouterr().out  # which it could not
    directory = tmp_path / "runs" / "own"
    points = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    nats = [point["val/nll"] for point in points if "val/nll" in point]
    assert nats[-1] < nats[0] - 0.3

    assert main(["validate", str(directory), "--import", "my_backbone"]) == 0
    assert json.loads(capsys.readouterr().out)["val/nll"] == pytest.approx(nats[-1], rel=1e-5)
    assert main(["export", "--checkpoint", str(directory), "--output", str(tmp_path / "e")]) == 2
    assert "has no class in Transformers" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "my_backbone")
    assert main(["validate", str(directory)]) == 2
    assert "give --import my_backbone" in capsys.readouterr().err
