"""The command itself."""

import subprocess
import sys

import pytest

from headless.cli.main import COMMANDS, main


def test_help_names_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from headless.cli.main import main; main(['--help']); "
        "print(sorted({'torch', 'lightning', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert lines[-1] == "[]"
    for command in COMMANDS:
        assert any(line.split()[:1] == [command] for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([command, "--help"])
    except SystemExit as exit:  # argparse's own way out of --help
        code = exit.code
    assert code in (0, None)
    assert "usage" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("headless 0.")


def test_prepare_train_resume_compare_by_the_real_command(text_files, tmp_path) -> None:
    """The README's way; one command as a process of its own."""
    data, runs = str(tmp_path / "data"), str(tmp_path / "runs")
    tiny = ["--model.backbone.hidden_size", "16", "--model.backbone.num_attention_heads", "2"]
    tiny += ["--model.backbone.intermediate_size", "32", "--data.sequence_length", "16"]
    tiny += ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
    tiny += ["--data.path", data, "--run.root", runs, "--trainer.accelerator", "cpu"]
    commands = [
        ["prepare", "--input", str(text_files), "--output", data, "--vocab_size", "300"],
        ["pretrain", "--config", "configs/demo/vanilla.yaml", *tiny],
        ["pretrain", "--config", "configs/demo/headless.yaml", "--run.wandb", "disabled", *tiny],
        ["validate", f"{runs}/headless"],
        ["compare", f"{runs}/vanilla", f"{runs}/headless", "--output", f"{runs}/report"],
    ]
    for number, command in enumerate(commands):
        if number == 1:
            own = [sys.executable, "-m", "headless", *command]
            result = subprocess.run(own, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
        else:
            assert main(command) == 0
    assert (tmp_path / "runs" / "report" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "runs" / "vanilla" / "wandb").glob("offline-run-*/*.wandb"))
