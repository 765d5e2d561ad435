"""`headless --print_completion`: the whole command in a shell."""

import subprocess
from pathlib import Path

import pytest

from headless.cli.main import COMMANDS, main

TRY = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _shtab_headless; echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: written.append(text))
        assert main(["--print_completion", "shtab-bash"]) == 0
    path = tmp_path_factory.mktemp("shell") / "headless.bash"
    path.write_text("".join(written))
    return path


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", set(COMMANDS)),
        ("gen", {"generate"}),
        ("generate|--head|", {"auto", "calibrated", "tied", "trained"}),
        ("generate|--max_new", {"--max_new_tokens"}),
        ("pretrain|--model.schedule.w", {"--model.schedule.warmup_steps"}),
        ("pretrain|--run.wandb|o", {"offline", "online"}),
        ("finetune|--start|", {"calibrated", "embedding", "random"}),
        ("finetune|--seed", {"--seeds", "--seeds+"}),
        ("validate|--data.val_", {"--data.val_batch_size"}),
    ],
)
def test_it_completes_commands_options_and_values(
    script: Path, line: str, wanted: set[str]
) -> None:
    words = ["bash", "-c", TRY, "bash", str(script), "headless", *line.split("|")]
    result = subprocess.run(words, capture_output=True, text=True)
    assert wanted <= set(result.stdout.split()), result.stderr


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print_completion=fish"]) == 2
    assert "shtab-bash" in capsys.readouterr().err
