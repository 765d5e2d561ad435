"""`headless finetune --task lm-head`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headless.cli.finetune_head import main
from headless.cli.main import main as command
from headless.errors import HeadlessError
from headless.runs.directory import open_run
from headless.training.assembly import build
from headless.training.pretrain import fit
from headless.training.tune_head import tuning_config


@pytest.fixture
def source(run_arguments: Callable[..., list[str]]) -> Path:
    return fit(build(run_arguments("source", "--model.optimizer.lr", "1e-2")))


def first_nll(run: Path) -> dict[str, Any]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return next(point for point in map(json.loads, lines) if "val/nll" in point)


@pytest.mark.parametrize(
    ("start", "key"), [("calibrated", "val/nll"), ("embedding", "val/nll_uncalibrated")]
)
def test_a_run_beside_its_source(
    start: str, key: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--task", "lm-head", "--model", str(source), "--start", start, "--steps", "8"])
    path = source.parent / f"source-lm-head-{start}"
    assert capsys.readouterr().out.splitlines()[-1] == f"run directory: {path}"
    assert first_nll(path)["val/nll"] == pytest.approx(
        open_run(source).read_summary()["last"][key], rel=1e-5
    )
    config = open_run(path).read_config()
    assert config["seed_everything"] == open_run(source).read_config()["seed_everything"] + 1
    assert (
        config["model"]["schedule"] | {"name": "constant", "warmup_steps": 2}
        == (config["model"]["schedule"])
    )
    assert config["model"]["optimizer"]["lr"] == pytest.approx(1e-3)
    again = ["--config", str(path / "config.yaml"), "--run.name", "again"]
    assert command(["pretrain", *again]) == 0
    ends = [open_run(p).read_summary()["last"]["val/nll"] for p in (path, path.parent / "again")]
    assert ends[0] == ends[1]


def test_options_of_pretrain_win(source: Path) -> None:
    options = ["--data.batch_size", "4", "--run.name", "mine", "--model.optimizer.lr", "3e-4"]
    main(["--task=lm-head", "--model", str(source), "--steps", "2", "--probe", "true", *options])
    config = open_run(source.parent / "mine").read_config()
    assert config["data"]["batch_size"] == 4
    assert config["model"]["optimizer"]["lr"] == 3e-4
    assert config["model"]["freeze_backbone"] is True


def test_a_hugging_face_model(source: Path, dataset: Path, tmp_path: Path) -> None:
    export = tmp_path / "export"
    assert command(["export", "--checkpoint", str(source), "--output", str(export)]) == 0
    with pytest.raises(HeadlessError, match="give --data"):
        tuning_config(str(export))
    main(
        [
            *("--task", "lm-head", "--model", str(export), "--steps", "2", "--data", str(dataset)),
            *("--data.sequence_length", "16", "--run.root", str(tmp_path / "runs")),
            *("--run.wandb", "disabled", "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false"),
        ]
    )
    path = tmp_path / "runs/export-lm-head-calibrated"
    wanted = open_run(source).read_summary()["last"]["val/nll"]
    assert first_nll(path)["val/nll"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: model"),
        (["--start", "warm"], 'Parser key "start"'),
        (["--steps", "many"], 'Parser key "steps"'),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--lr", "0"], "lr"),
        (["--probe", "perhaps"], 'Parser key "probe"'),
        (["--model.optimizer.rate", "1"], "rate"),
    ],
)
def test_bad_input(arguments: list[str], message: str, source: Path, capsys: Any) -> None:
    model = ["--model", str(source)] if arguments else []
    assert command(["finetune", "--task", "lm-head", *model, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
