"""What a user can get wrong ends in one line that says how to mend it, and in exit code 2."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from config_files import read_config

from headless.cli.main import main


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command; the one line that it complains with."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("headless: error:")
    ]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.optimizer.lrr", "3"], "did you mean 'model.optimizer.lr'?"),
        (["--trainer.max_step", "3"], "did you mean 'trainer.max_steps'?"),
        (["--samples.every_n_step", "3"], "did you mean 'samples.every_n_steps'?"),
        (["--model.objective.temperatur", "3"], "did you mean 'temperature'?"),
        (["--model.objective", "ContrastiveWeightTyin"], "did you mean 'ContrastiveWeightTying'?"),
        (["--model.optimizer.lr", "hot"], "Expected a <class 'float'>. Got value: hot"),
        (["--model.optimizer.lr", "-1"], "optimizer.lr must be positive"),
        (["--model.objective.temperature", "0"], "temperature must be positive"),
        (["--model.backbone.hidden_size", "15"], "not a multiple of num_attention_heads"),
        (["--model.backbone.preset", "pythia-70"], "presets: gpt2"),
        (["--data.sequence_length", "33"], "sequence_length 33 is longer than the model's 32"),
        (["--data.batch_size", "5000"], "lower data.batch_size"),
        (["--data.path", "nowhere"], "is not a prepared dataset"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--seed_everything", "true"], "seed_everything must be a whole number"),
    ],
)
def test_pretrain_names_what_is_wrong(
    run_arguments: Callable[..., list[str]],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert message in fails(["pretrain", *run_arguments("run", *arguments)], capsys)
    assert not list((tmp_path / "runs").glob("run/checkpoints/*"))


@pytest.mark.parametrize(
    ("place", "wrong", "right"),
    [
        (("model", "optimizer"), "weight_deca", "weight_decay"),
        (("data",), "sequence_lenght", "sequence_length"),
        ((), "modle", "model"),
    ],
)
def test_a_wrong_key_in_a_file(
    tmp_path: Path, place, wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config("configs/demo/headless.yaml")
    inner = config
    for key in place:
        inner = inner[key]
    inner[wrong] = 1
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert f"{right}'?" in fails(["pretrain", "--config", str(path)], capsys)


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "did you mean 'pretrain'?" in fails(["pretain"], capsys)


@pytest.fixture(scope="module")
def finished(run_arguments_in: Callable[..., list[str]], tmp_path_factory) -> Path:
    """A run of a few steps."""
    root = tmp_path_factory.mktemp("finished")
    assert main(["pretrain", *run_arguments_in(root, "run")]) == 0
    return root / "run"


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, where `run_arguments` look for it."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "run"))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_an_existing_run_is_not_touched(trained: Path, run_arguments, capsys) -> None:
    before = snapshot(trained)
    line = fails(["pretrain", *run_arguments("run")], capsys)
    assert "--run.resume true" in line
    assert "--run.overwrite true" in line
    assert snapshot(trained) == before


def test_overwriting_moves_the_old_run_aside(trained: Path, run_arguments, capsys) -> None:
    before = {Path(p).name: data for p, data in snapshot(trained).items()}
    assert main(["pretrain", *run_arguments("run", "--run.overwrite", "true")]) == 0
    aside = snapshot(trained.with_name("run.old-1"))
    assert {Path(p).name: data for p, data in aside.items()} == before
    assert (trained / "summary.json").is_file()


def test_a_damaged_data_file(dataset: Path, run_arguments, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(dataset, copy)
    tokens = bytearray((copy / "train.bin").read_bytes())
    tokens[100] ^= 1
    (copy / "train.bin").write_bytes(tokens)
    line = fails(["pretrain", *run_arguments("run", "--data.path", str(copy))], capsys)
    assert "train.bin is damaged" in line
    assert "checksum" in line


def test_data_of_another_tokenizer(
    trained: Path, text_files: Path, run_arguments, tmp_path: Path, capsys
) -> None:
    other = tmp_path / "other"
    arguments = ["--input", str(text_files), "--output", str(other), "--vocab_size", "320"]
    options = ["--validation_fraction", "0.4"]  # other training documents, another tokenizer
    assert main(["prepare", *arguments, *options]) == 0
    for command in (
        ["pretrain", *run_arguments("run", "--data.path", str(other), "--run.resume", "true")],
        ["validate", str(trained), "--data.path", str(other)],
    ):
        assert "trained with another tokenizer" in fails(command, capsys)


def test_a_checkpoint_of_another_model(trained: Path, run_arguments, capsys) -> None:
    more = ("--model.backbone.num_hidden_layers", "1", "--run.resume", "true")
    assert "holds another model" in fails(["pretrain", *run_arguments("run", *more)], capsys)


def test_a_damaged_checkpoint(trained: Path, run_arguments, capsys) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    line = fails(["pretrain", *run_arguments("run", "--run.resume", "true")], capsys)
    assert "last.ckpt is damaged" in line


def test_a_loss_that_is_no_number_leaves_no_bad_checkpoint(
    run_arguments, tmp_path: Path, capsys
) -> None:
    """The first update ruins the weights, so that none of them is good; see test_divergence."""
    more = ("--trainer.max_steps", "60", "--checkpoint.every_n_steps", "1")
    huge = ("--model.optimizer.lr", "1e30", "--model.schedule.warmup_steps", "0")
    line = fails(["pretrain", *run_arguments("run", *more, *huge)], capsys)
    assert "the loss is not a finite number at step" in line
    assert "last good checkpoint is kept" in line
    assert not (tmp_path / "runs/run/checkpoints/last.ckpt").exists()
    summary = tmp_path / "runs/run/summary.json"
    assert not summary.exists() or not json.loads(summary.read_text())["finished"]


def test_a_full_disk_leaves_the_previous_checkpoint(trained: Path, run_arguments) -> None:
    """A limit on the size of files stands for the full disk: the same error at the same place."""
    checkpoint = trained / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    limit = len(before) // 2

    more = ("--run.resume", "true", "--trainer.max_steps", "14", "--checkpoint.every_n_steps", "1")
    result = subprocess.run(
        [sys.executable, "-m", "headless", "pretrain", *run_arguments("run", *more)],
        capture_output=True,
        text=True,
        env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode == 2, result.stderr
    complaints = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(complaints) == 1
    assert "no room to write" in complaints[0]
    assert "last.ckpt" in complaints[0]
    assert "Traceback" not in result.stderr
    assert checkpoint.read_bytes() == before
    beside = {path.name for path in checkpoint.parent.iterdir()}
    assert beside == {"first.safetensors", "last.ckpt"}


def test_validate_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no" in fails(["validate", str(tmp_path / "none")], capsys)
    assert "is not a run directory" in fails(["validate", str(tmp_path)], capsys)
    assert "comes first" in fails(["validate", "--data.path", "x"], capsys)
