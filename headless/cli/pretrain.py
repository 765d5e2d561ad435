"""`headless pretrain`: one config, one run."""

import shlex
import sys

from headless.isolation import isolated
from headless.models.backbone import is_custom
from headless.progress import Display
from headless.training.assembly import RunCLI, build
from headless.training.imports import OPTION, needed_imports
from headless.training.pretrain import fit, is_first_process


@isolated()
def main(arguments: list[str]) -> None:
    with Display() as display:
        cli = build(arguments, display)
        fit(cli)
    if is_first_process():
        print(closing(cli))
        if caution := cli.datamodule.manifest.caution:
            print(f"headless: {caution}", file=sys.stderr)


def closing(cli: RunCLI) -> str:
    """The score, and the commands that go on from it."""
    path, summary = cli.run.directory.path, cli.run.directory.read_summary()
    place, root = (shlex.quote(str(part)) for part in (path, path.parent))
    masked = cli.model.task == "masked"
    prompt = f"It was {cli.datamodule.tokenizer.mask_token} ." if masked else "It was"
    backbone = cli.model.backbone
    own = needed_imports(cli.model.objective, getattr(backbone, "module", backbone))
    imports = (f" {OPTION} {shlex.quote(name)}" for name in own)
    last = summary.get("last") or {}
    units = {"val/nll": "nats a token", "val/bits_per_byte": "bits per byte"}
    scores = [
        f"{last[name]:.3f} {unit}"
        for name, unit in units.items()
        if isinstance(last.get(name), float)
    ]
    score = f"validation: {', '.join(scores)} (step {summary.get('steps')})\n" if scores else ""
    lines = [
        f"{score}run directory: {path}",
        f"next: headless compare {root} --output {root}/report",
    ]
    if cli.datamodule.tokenizer_sha256 is None:
        data = shlex.quote(f"catalogue:{cli.datamodule.path}")
        lines.append(f"      headless evaluate --model {place} --tasks {data}")
    elif not is_custom(backbone):  # which Transformers could not decode
        command = f"headless generate{''.join(imports)}"
        lines.append(f"      {command} --model {place} --prompt {shlex.quote(prompt)}")
    return "\n".join(lines)
