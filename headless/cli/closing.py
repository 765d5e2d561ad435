"""What `headless pretrain` says at the end: the score, and the commands that go on from it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from headless.runs.directory import RunDirectory
from headless.training.imports import OPTION


def closing(directory: Path, mask_token: str | None = None, imports: Sequence[str] = ()) -> str:
    """A few lines for the terminal.

    Args:
        directory: of the run.
        mask_token: a masked model continues no prompt, it fills in this token.
        imports: modules of the user's own that the model needs.
    """
    run = RunDirectory(directory)
    summary = run.read_summary()
    place, root = (shlex.quote(str(path)) for path in (run.path, run.path.parent))
    prompt = f"It was {mask_token} ." if mask_token else "It was"
    own = "".join(f" {OPTION} {shlex.quote(module)}" for module in imports)
    return "\n".join(
        [
            *_score(summary.get("last") or {}, summary.get("steps")),
            f"run directory: {run.path}",
            f"next: headless compare {root} --output {root}/report",
            f"      headless generate{own} --model {place} --prompt {shlex.quote(prompt)}",
        ]
    )


def _score(last: dict[str, float], steps: int | None) -> list[str]:
    """The last validation's, which is that of the last step."""
    names = {"nll": "nats a token", "bits_per_byte": "bits per byte"}
    found = [
        f"{last[f'val/{name}']:.3f} {unit}"
        for name, unit in names.items()
        if isinstance(last.get(f"val/{name}"), float)
    ]
    return [f"validation: {', '.join(found)} (step {steps})"] if found else []
