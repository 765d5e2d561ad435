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
    if is_run(model):
        run = run_of(find_checkpoint(model))
        config, source = run.read_config(), run.path.name
        source_steps = int(run.read_summary().get("steps") or config["trainer"]["max_steps"])
        config["run"]["root"] = str(run.path.parent)
        config["run"]["group"] = config["run"].get("group") or source
    elif data is None or steps is None:
        raise HeadlessError(
            f"{model} is no run of ours: give --data (a prepared dataset) and --steps"
        )
    else:
        source, source_steps = Path(model).name, 0
        config = {"model": {}, "data": {}, "trainer": {}, "run": {}, "seed_everything": 0}
    steps = steps or max(10, round(STEPS_SHARE * source_steps))
    if steps < 1:
        raise HeadlessError(f"--steps must be at least 1, got {steps}")
    config["seed_everything"] = int(config["seed_everything"]) + 1  # another order of the data
    config["run"] |= {
        "name": name or f"{source}-{TASK}-{start}{'-probe' if probe else ''}",
        "tags": [*(config["run"].get("tags") or []), TASK, start],
        "resume": False,
        "overwrite": False,
    }
    config["model"] |= _model_settings(config["model"], model, start, lr, steps)
    config["model"]["freeze_backbone"] = probe
    if data is not None:
        config["data"]["path"] = str(data)
    trainer = config["trainer"]
    trainer["max_steps"] = steps
    trainer["val_check_interval"] = max(1, steps // 4) * int(
        trainer.get("accumulate_grad_batches") or 1
    )
    trainer["check_val_every_n_epoch"] = None
    trainer["log_every_n_steps"] = max(1, steps // 20)
    config.pop("geometry", None)  # of runs made when it had a monitor of its own
    for monitor in ("checkpoint", "samples"):
        config[monitor] = {**(config.get(monitor) or {}), "every_n_steps": steps}
    return config


def _model_settings(
    source: Mapping[str, Any], place: str, start: Start, lr: float | None, steps: int
) -> dict[str, Any]:
    """What of `model` is other than the source's."""
    backbone, optimizer = source.get("backbone") or {}, source.get("optimizer") or {}
    return {
        "objective": {
            "class_path": "CrossEntropy",
            "init_args": {
                "tied": False,
                # The calibrated head has a bias, and so has what begins as a copy of it.
                "unigram_bias": "initial" if start == "calibrated" else "none",
            },
        },
        "backbone": {"attn_implementation": backbone.get("attn_implementation", "sdpa")},
        "optimizer": {
            **optimizer,
            "lr": lr or LR_SHARE * optimizer.get("lr", 1e-3),
            "weight_decay": 0.0,
        },
        "schedule": {"name": "constant", "warmup_steps": round(WARMUP_SHARE * steps)},
        "init_from": place,
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
