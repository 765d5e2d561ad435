"""Give a pre-trained model a softmax head (the paper, §3.3).

A fine-tuning is a run like any other: same data pipeline, same directory, same monitors. Its config
is the source's with another objective and a short schedule, and can be run again by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.runs.run import Run
from headless.training.assembly import arguments_of, build
from headless.training.checkpoint_io import find_checkpoint, is_run, run_of
from headless.training.pretrain import fit

TASK = "lm-head"
STEPS_SHARE = 0.1  # of the source's steps
WARMUP_SHARE = 0.2  # of the fine-tuning's steps: the paper's 2,000 of 10,000
LR_SHARE = 0.1  # of the source's peak learning rate: the paper's 1e-4 after 1e-3
Start = Literal["calibrated", "embedding", "random"]


def tuning_config(
    model: str,
    start: Start = "calibrated",
    probe: bool = False,
    steps: int | None = None,
    lr: float | None = None,
    data: Path | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """The config of the run that trains an untied softmax head on a model, with it or alone.

    Its validation scores before the first step are logged, too. Any setting of a run can be
    changed besides: `--data.batch_size 16`.

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        start: where the head begins: the model's own (of a headless run the calibrated one), a
            copy of its input embeddings (the paper's), or random.
        probe: train the head alone.
        steps: optimizer steps; a tenth of the source's by default.
        lr: constant after a linear warm-up over a fifth of the steps; a tenth of the source's by
            default. There is no weight decay.
        data: a prepared dataset; a run's own by default, in another order.
        name: of the new run, beside the source's.
    """
    config: dict[str, Any] = {"seed_everything": 0}
    source, source_steps = Path(model).name, 0
    place = {}
    if is_run(model):
        run = run_of(find_checkpoint(model))
        config, source = run.read_config(), run.path.name
        source_steps = int(run.read_summary().get("steps") or config["trainer"]["max_steps"])
        place = {"root": str(run.path.parent), "group": config["run"].get("group") or source}
    elif data is None or steps is None:
        raise HeadlessError(
            f"{model} is no run of ours: give --data (a prepared dataset) and --steps"
        )
    steps = max(10, round(STEPS_SHARE * source_steps)) if steps is None else steps
    if steps < 1:
        raise HeadlessError(f"--steps must be at least 1, got {steps}")
    before = {name: config.get(name) or {} for name in ("run", "model", "trainer")}
    changed: dict[str, dict[str, Any]] = {
        "run": place
        | {
            "name": name or f"{source}-{TASK}-{start}{'-probe' if probe else ''}",
            "tags": [*(before["run"].get("tags") or []), TASK, start],
            "resume": False,
            "overwrite": False,
        },
        "model": {**_model(before["model"], start, lr, steps), "init_from": model}
        | {"freeze_backbone": probe},
        "data": {} if data is None else {"path": str(data)},
        "trainer": _trainer(before["trainer"], steps),
        **{monitor: {"every_n_steps": steps} for monitor in ("checkpoint", "samples")},
    }
    seed = int(config["seed_everything"]) + 1  # another order of the data
    groups = {name: {**(config.get(name) or {}), **values} for name, values in changed.items()}
    config.pop("geometry", None)  # of runs made when it had a monitor of its own
    return config | groups | {"seed_everything": seed}


def _trainer(source: Mapping[str, Any], steps: int) -> dict[str, Any]:
    accumulate = int(source.get("accumulate_grad_batches") or 1)
    return {
        "max_steps": steps,
        "val_check_interval": max(1, steps // 4) * accumulate,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": max(1, steps // 20),
    }


def _model(source: Mapping[str, Any], start: Start, lr: float | None, steps: int) -> dict[str, Any]:
    """What of `model` is other than the source's."""
    backbone, optimizer = (source.get(name) or {} for name in ("backbone", "optimizer"))
    lr = LR_SHARE * optimizer.get("lr", 1e-3) if lr is None else lr
    # The calibrated head has a bias, and so has what begins as a copy of it.
    bias = "initial" if start == "calibrated" else "none"
    return {
        "objective": {
            "class_path": "CrossEntropy",
            "init_args": {"tied": False, "unigram_bias": bias},
        },
        "backbone": {"attn_implementation": backbone.get("attn_implementation", "sdpa")},
        "optimizer": {**optimizer, "lr": lr, "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup_steps": round(WARMUP_SHARE * steps)},
        "switch_at": None,
        "init_head": "source" if start == "calibrated" else start,
    }


@isolated()
def tune_head(
    model: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    progress: bool | Report = False,
    **options: Any,
) -> Run:
    """Train a softmax head on a model.

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        overrides: settings of `pretrain`, which go before those that are derived.
        progress: show it, or a function that gets (phase, done, in all).
        **options: see `tuning_config`: start, probe, steps, lr, data, name.
    """
    with Display(progress) as display:
        words = arguments_of(tuning_config(str(model), **options), overrides)
        return Run(fit(build(words, display), validate_first=True))
