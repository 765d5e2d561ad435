"""What a number was made with: machine, versions, commit, command."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import headless

_SECRET = re.compile(r"(api[-_]?key|secret|passw|credential|(^|[-_.])token$)", re.IGNORECASE)
LINUX = sys.platform == "linux"
PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "datasets", "wandb", "numpy")


def describe_environment() -> dict[str, Any]:
    """Versions, machine, GPUs, git commit and command line: plain values.

    What cannot be found out is None. Nothing is imported for it, and no name of a user is in it.
    """
    # An installed package may lie inside another project's checkout: its commit is not ours.
    tracked = bool(_git("ls-files", Path(headless.__file__).name))
    return {
        "headless": headless.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(psutil.Process().cpu_affinity() or ()) if LINUX else psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "commit": _git("rev-parse", "HEAD") if tracked else None,
        "dirty": bool(_git("status", "--porcelain")) if tracked else None,
        "command": describe_command(sys.argv),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a benchmark needs few of them
        return None


def describe_command(arguments: list[str]) -> str:
    """A command line to show to others: quoted, without secrets and the home directory's name."""
    words = [Path(arguments[0]).name]
    hide = False
    for word in arguments[1:]:
        option, equals, value = word.partition("=")
        secret = _SECRET.search(option) is not None and option.startswith("-")
        if hide:
            word = "***"
        elif secret and equals:
            word = f"{option}=***"
        hide = secret and not equals
        quoted = word if "***" in word else shlex.quote(word)
        words.append(quoted.replace(str(Path.home()) + os.sep, "~/"))
    return " ".join(words)


def _cpu() -> str | None:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if LINUX else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor()) or None


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this code lies in; None outside one."""
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=Path(headless.__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
