"""Bits per byte of a tokenizer that loses text is said to be no fair number, from `prepare` on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.cli.main import main

NOTE = "bits per byte counts what no model was asked for"


def test_what_a_tokenizer_loses_is_said_by_prepare_and_pretrain_and_kept(
    text_files: Path,
    lossy_tokenizer: Path,
    run_arguments: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    more = ["--tokenizer", str(lossy_tokenizer), "--validation_fraction", "0.1"]
    assert main(["prepare", "--input", str(text_files), "--output", str(data), *more]) == 0
    assert "100.0% of the text's bytes" in (said := capsys.readouterr().err)
    assert NOTE in said
    steps = ("--trainer.max_steps", "1", "--trainer.val_check_interval", "1")
    assert main(["pretrain", *run_arguments("run", "--data.path", str(data), *steps)]) == 0
    assert NOTE in capsys.readouterr().err
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    assert summary["inexact_share"] == 1.0
