"""What is written down about a machine is true, and says nothing about its user."""

import getpass
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from headless.runs.environment import describe_command, describe_environment


def test_versions_are_the_installed_ones() -> None:
    found = describe_environment()
    assert found["python"] == platform.python_version()
    for package in ("torch", "transformers", "wandb"):
        assert found["packages"][package] == version(package)


def test_it_is_plain_json() -> None:
    found = describe_environment()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0


def test_the_commit_is_this_checkout_s() -> None:
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    result = subprocess.run(git, capture_output=True, text=True)
    known = result.stdout.strip() if result.returncode == 0 else None
    assert describe_environment()["commit"] == known


def test_code_outside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    """Copied into another project's checkout, as site-packages may be: its commit is not ours."""
    source = Path(__file__).parents[2] / "headless"
    for name in ("__init__.py", "errors.py", "runs/__init__.py", "runs/environment.py"):
        (tmp_path / "headless" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "headless" / name).write_bytes((source / name).read_bytes())
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    commands = (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"])
    for command in commands:
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    code = (
        "from headless.runs.environment import describe_environment as d;"
        "print(d()['commit'], d()['dirty'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["None", "None"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from headless.runs.environment import describe_environment as d; d();"
        "print({'torch', 'transformers', 'lightning', 'wandb'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"


def test_secrets_and_the_home_directory_are_not_written() -> None:
    home = Path.home()
    command = [f"{home}/bin/headless", "pretrain", "--config", f"{home}/a b.yaml"]
    command += ["--hub.token", "s3cret", "--api-key=s3cret", "--data.tokenizer", "kept"]
    text = describe_command(command)
    assert "s3cret" not in text
    assert str(home) + "/" not in text
    assert text.startswith("headless pretrain --config ")
    assert text.endswith("--hub.token *** --api-key=*** --data.tokenizer kept")


def test_the_user_is_not_in_it() -> None:
    user = getpass.getuser()
    values = {k: v for k, v in describe_environment().items() if k != "command"}
    assert user not in json.dumps(values).split('"')
