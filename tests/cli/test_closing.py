"""The end of a training says what came out, and commands that can be given as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from headless.cli.main import main
from headless.data.prepare import prepare
from headless.runs.directory import RunDirectory

QUICK = (
    *("--trainer.max_steps", "3", "--trainer.val_check_interval", "2"),
    *("--laboratory.enabled", "false"),
)


def test_score_directory_and_commands(run_arguments, tmp_path: Path, capsys) -> None:
    root = tmp_path / "my runs"  # a place that a shell would take for two
    arguments = run_arguments("run", *QUICK, "--run.root", str(root))
    assert main(["pretrain", *arguments]) == 0
    score, place, *commands = capsys.readouterr().out.splitlines()
    last = RunDirectory(root / "run").read_summary()["last"]
    nats, bits = last["val/nll"], last["val/bits_per_byte"]
    assert score == f"validation: {nats:.3f} nats a token, {bits:.3f} bits per byte (step 3)"
    assert place == f"run directory: {root / 'run'}"
    assert len(commands) == 2
    for line in commands:
        name, *words = shlex.split(line.removeprefix("next:"))
        assert name == "headless"
        assert main(words) == 0, line
    assert (root / "report" / "report.html").is_file()
    assert "It was" in capsys.readouterr().out


def test_a_masked_model_is_asked_for_what_is_missing(
    run_arguments, text_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    prepare([str(text_files)], data, vocab_size=320, validation_fraction=0.1, mask_token="[MASK]")
    more = ("--data.path", str(data), "--data.task", "masked")
    bert = ("--model.backbone.model_type", "bert")
    assert main(["pretrain", *run_arguments("run", *QUICK, *more, *bert)]) == 0
    out = capsys.readouterr().out
    assert re.match(r"validation: \d\.\d{3} nats a token \(step 3\)\n", out)
    (generate,) = re.findall(r"headless (generate .*)", out)
    assert "[MASK]" in generate
    assert main(shlex.split(generate)) == 0


def test_a_run_that_was_not_validated_claims_no_score(run_arguments, capsys) -> None:
    arguments = run_arguments("run", *QUICK, "--trainer.limit_val_batches", "0")
    assert main(["pretrain", *arguments]) == 0
    assert capsys.readouterr().out.startswith("run directory: ")
