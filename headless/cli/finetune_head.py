"""`headless finetune --task lm-head`: give a pre-trained model a softmax head (the paper, §3.3).

A fine-tuning is a run like any other: same data pipeline, same directory, same monitors. Its config
is the source's with another objective and a short schedule, and can be run again by itself.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory

TASK = "lm-head"
SHARE = 0.1  # of the source's steps
WARMUP_SHARE = 0.2  # of the fine-tuning's steps: the paper's 2,000 of 10,000
RATE = 0.1  # of the source's peak learning rate: the paper's 1e-4 after 1e-3
STARTS = ("calibrated", "embedding", "random")

HELP = f"""Train an untied softmax head on a pre-trained model, with all its weights or alone.

Any option of headless pretrain can follow (--data.batch_size 16, --trainer.precision 32-true, …).
By default it takes {SHARE:.0%} of the source's steps at {RATE:g} times its learning rate, constant
after a linear warm-up over {WARMUP_SHARE:.0%} of them, without weight decay, on the source's data
in another order. The validation scores before the first step are logged, too."""


@dataclass(frozen=True)
class HeadTuning:
    """What is asked for; None takes the default that `HELP` names."""

    model: str
    start: str = "calibrated"
    probe: bool = False
    steps: int | None = None
    lr: float | None = None
    data: Path | None = None
    name: str | None = None


def tuning_config(tuning: HeadTuning) -> dict[str, Any]:
    """The config of the run that does it.

    Raises:
        HeadlessError: nothing to begin from, or a Hugging Face model without data and steps.
    """
    from headless.training.loading import find_checkpoint, is_run, run_of

    if is_run(tuning.model):
        run = run_of(find_checkpoint(tuning.model))
        config, name = run.read_config(), run.path.name
        source_steps = int(run.read_summary().get("steps") or config["trainer"]["max_steps"])
        rate = config["model"]["optimizer"]["lr"]
        config["run"]["root"] = str(run.path.parent)
        config["run"]["group"] = config["run"].get("group") or name
    else:
        name, source_steps, rate = Path(tuning.model).name, 0, 1e-3
        config = {"model": {}, "data": {}, "trainer": {}, "run": {}, "seed_everything": 0}
        if tuning.data is None or tuning.steps is None:
            raise HeadlessError(
                f"{tuning.model} is no run of ours: give --data (a prepared dataset) and --steps"
            )
    steps = tuning.steps or max(10, round(SHARE * source_steps))
    if steps < 1:
        raise HeadlessError(f"--steps must be at least 1, got {steps}")
    attention = (config["model"].get("backbone") or {}).get("attn_implementation", "sdpa")
    kind = tuning.start + ("-probe" if tuning.probe else "")
    config["seed_everything"] = int(config["seed_everything"]) + 1  # another order of the data
    config["run"] |= {
        "name": tuning.name or f"{name}-{TASK}-{kind}",
        "tags": [*(config["run"].get("tags") or []), TASK, tuning.start],
        "resume": False,
        "overwrite": False,
    }
    config["model"] |= {
        "objective": {
            "class_path": "CrossEntropy",
            "init_args": {
                "tied": False,
                # The calibrated head has a bias, and so has what begins as a copy of it.
                "unigram_bias": "initial" if tuning.start == "calibrated" else "none",
            },
        },
        "backbone": {"attn_implementation": attention},
        "optimizer": {
            **(config["model"].get("optimizer") or {}),
            "lr": tuning.lr or RATE * rate,
            "weight_decay": 0.0,
        },
        "schedule": {"name": "constant", "warmup_steps": round(WARMUP_SHARE * steps)},
        "init_from": tuning.model,
        "init_head": {"calibrated": "source"}.get(tuning.start, tuning.start),
        "freeze_backbone": tuning.probe,
    }
    if tuning.data is not None:
        config["data"]["path"] = str(tuning.data)
    every = max(1, steps // 4)
    config["trainer"] |= {
        "max_steps": steps,
        "val_check_interval": every * int(config["trainer"].get("accumulate_grad_batches") or 1),
        "check_val_every_n_epoch": None,
        "log_every_n_steps": max(1, steps // 20),
    }
    for monitor in ("checkpoint", "geometry", "samples"):
        config[monitor] = {**(config.get(monitor) or {}), "every_n_steps": steps}
    return config


def tune_head(tuning: HeadTuning, options: Sequence[str] = ()) -> Path:
    """Fine-tune; returns the run directory.

    Args:
        tuning: what is asked for.
        options: of `headless pretrain`, which go before the defaults here.

    Raises:
        HeadlessError: what `tuning_config` and `headless.cli.pretrain` refuse.
    """
    from headless.cli.pretrain import build, pretrain

    text = yaml.safe_dump(tuning_config(tuning), sort_keys=False)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        cli = build(["--config", str(path), *options])
    return pretrain(cli, validate_first=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise HeadlessError(message)


def main(arguments: list[str]) -> None:
    """The command."""
    parser = _Parser(
        prog=f"headless finetune --task {TASK}",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task", required=True, choices=[TASK])
    parser.add_argument("--model", required=True, help="a run, a checkpoint, a Hugging Face model")
    parser.add_argument(
        "--start",
        choices=STARTS,
        default="calibrated",
        help="where the head begins: the model's own (of a headless run the calibrated one), a "
        "copy of its input embeddings (the paper's), or random",
    )
    parser.add_argument(
        "--probe", type=_truth, default=False, metavar="true|false", help="train the head alone"
    )
    parser.add_argument("--steps", type=int, help="optimizer steps")
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--data", type=Path, help="a prepared dataset; a run's own by default")
    parser.add_argument("--name", help="of the new run, beside the source's")
    options, rest = parser.parse_known_args(arguments)
    values = {key: value for key, value in vars(options).items() if key != "task"}
    path = tune_head(HeadTuning(**values), rest)
    scores = RunDirectory(path).read_summary().get("last", {})
    if "val/nll" in scores:
        print(f"val/nll {scores['val/nll']:.4f}")
    print(f"run directory: {path}")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"
