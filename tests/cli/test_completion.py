"""`headless --print_completion`: the whole command in a shell."""

import subprocess
from pathlib import Path

import pytest

from headless.cli.main import COMMANDS, main

TRY = """source "$1"; shift
for line in "$@"; do
    IFS='|' read -r -a COMP_WORDS <<< "headless|$line|end"; unset "COMP_WORDS[-1]"
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=(); _shtab_headless; echo "${COMPREPLY[@]}"
done
"""
LINES = {
    "": set(COMMANDS),
    "gen": {"generate"},
    "generate|--head|": {"auto", "calibrated", "tied", "trained"},
    "generate|--max_new": {"--max_new_tokens"},
    "pretrain|--model.schedule.w": {"--model.schedule.warmup_steps"},
    "pretrain|--run.wandb|o": {"offline", "online"},
    "finetune|--start|": {"calibrated", "embedding", "random"},
    "finetune|--seed": {"--seeds", "--seeds+"},
    "validate|--data.val_": {"--data.val_batch_size"},
}


def test_it_completes_commands_options_and_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bash, which reads the script once: it is long, but must not hold a class within itself."""
    written: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", lambda text, **_: written.append(text))
        assert main(["--print_completion", "shtab-bash"]) == 0
    script = tmp_path / "headless.bash"
    script.write_text("".join(written))
    assert script.stat().st_size < 2e6
    result = subprocess.run(
        ["bash", "-c", TRY, "bash", script, *LINES], capture_output=True, text=True
    )
    answers = result.stdout.splitlines()
    assert len(answers) == len(LINES), result.stderr
    for (line, wanted), answer in zip(LINES.items(), answers, strict=True):
        assert wanted <= set(answer.split()), line


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print_completion=fish"]) == 2
    assert "shtab-bash" in capsys.readouterr().err
