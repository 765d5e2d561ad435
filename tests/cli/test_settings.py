"""Every setting of a run is used, or refused in a line that names it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Union, get_args

import pytest
from lightning.pytorch.callbacks import RichModelSummary, TQDMProgressBar
from test_bad_input import fails

from headless.cli.main import main
from headless.training.assembly import _integers_first, build

OUT_OF_RANGE = [
    ("--seed_everything", "-1", "seed_everything must be from 0"),
    ("--seed_everything", "4294967296", "seed_everything must be from 0"),
    ("--model.optimizer.lr", ".nan", "optimizer.lr must be positive and finite, got nan"),
    ("--model.optimizer.lr", ".inf", "optimizer.lr must be positive and finite, got inf"),
    ("--model.optimizer.eps", "0", "optimizer.eps must be positive and finite"),
    ("--model.optimizer.eps", "-1e-8", "optimizer.eps must be positive and finite"),
    ("--model.optimizer.betas", "[2, 3]", "optimizer.betas must be in [0, 1), got [2.0, 3.0]"),
    ("--model.optimizer.betas", "[0.9, .nan]", "optimizer.betas must be in [0, 1)"),
    ("--model.optimizer.weight_decay", ".nan", "optimizer.weight_decay must not be negative"),
    ("--model.schedule.floor", ".nan", "schedule.floor must be in [0, 1]"),
    ("--model.backbone.hidden_size", "0", "hidden_size must be at least 1, got 0"),
    ("--model.backbone.num_hidden_layers", "0", "num_hidden_layers must be at least 1"),
    ("--model.backbone.hidden_size", "1000000000", "GiB, this machine has"),
    ("--model.objective.temperature", ".nan", "temperature must be positive and finite"),
    ("--data.num_workers", "-1", "data.num_workers must be at least 0"),
    ("--data.val_batch_size", "0", "val_batch_size must be at least 1"),
    ("--trainer.devices", "-1", "`devices` selected with `CPUAccelerator` should be an int > 0"),
    ("--trainer.devices", "0", "value is not a valid input using cpu accelerator"),
    ("--trainer.devices", "[0, 1]", "`devices` selected with `CPUAccelerator` should be"),
    ("--trainer.devices", "many", "`devices` selected with `CPUAccelerator` should be"),
    ("--trainer.max_steps", "0", "trainer.max_steps must be at least 1 or -1"),
    ("--trainer.accumulate_grad_batches", "0", "accumulate_grad_batches must be at least 1"),
    ("--trainer.log_every_n_steps", "0", "trainer.log_every_n_steps must be at least 1"),
    ("--trainer.limit_val_batches", "1.5", "1.5 for limit_val_batches, it has to be in [0.0, 1.0]"),
    ("--trainer.val_check_interval", ".nan", "`val_check_interval` should be an integer"),
    ("--trainer.val_check_interval", "0", "val_check_interval must be above 0, got 0"),
    ("--samples.temperature", "-1", "temperature must not be negative"),
    ("--samples.top_k", "0", "top_k must be at least 1"),
    ("--samples.max_new_tokens", "0", "max_new_tokens must be at least 1"),
    ("--throughput.warmup_steps", "-1", "warmup_steps must be at least 0"),
    ("--throughput.peak_flops", ".nan", "peak_flops must be positive and finite"),
    ("--laboratory.tokens", "0", "tokens must be at least 1"),
    ("--run.project", "a/b", "run.project must be a name without any of"),
    ("--run.tags", '["x", "x"]', "run.tags holds one twice"),
    ("--run.tags", '[""]', "run.tags must be printable, of 1 to 64 characters"),
    ("--run.group", "g" * 129, "run.group must be printable, at most 128 characters"),
]
WITHOUT_EFFECT = [
    ("--trainer.default_root_dir", "elsewhere", "set those"),
    ("--trainer.logger", "false", "run.wandb disabled turns W&B off"),
    ("--trainer.enable_checkpointing", "false", "see checkpoint"),
    ("--trainer.use_distributed_sampler", "true", "the data module deals"),
    ("--trainer.fast_dev_run", "true", "set trainer.max_steps"),
    ("--trainer.overfit_batches", "2", "set trainer.limit_train_batches"),
    ("--trainer.barebones", "true", "see run.wandb and checkpoint"),
    ("--trainer.limit_test_batches", "3", "nothing is tested here"),
    ("--data.mask_probability", "0.3", "it needs data.task masked"),
    ("--model.schedule.decay_fraction", "0.5", "it needs model.schedule.name wsd"),
]


@pytest.mark.parametrize(("option", "value", "message"), OUT_OF_RANGE)
def test_out_of_range(option: str, value: str, message: str, run_arguments, capsys) -> None:
    line = fails(["pretrain", *run_arguments("run", f"{option}={value}")], capsys)
    assert message in line
    assert "traceback is in" not in line


@pytest.mark.parametrize(("option", "value", "message"), WITHOUT_EFFECT)
def test_without_effect(option: str, value: str, message: str, run_arguments, capsys) -> None:
    line = fails(["pretrain", *run_arguments("run", f"{option}={value}")], capsys)
    assert "would have no effect here: " in line
    assert message in line
    assert option.removeprefix("--") in line


def test_what_lightning_would_overrule_is_used(
    run_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """A logger of the user's stands beside ours, and a model summary is shown."""
    logger = f'{{"class_path": "CSVLogger", "init_args": {{"save_dir": "{tmp_path}/csv"}}}}'
    more = ("--trainer.logger", logger, "--trainer.enable_model_summary", "true")
    trainer = build(run_arguments("run", *more)).trainer
    assert [type(logger).__name__ for logger in trainer.loggers] == [
        *("MetricsFileLogger", "CSVLogger")
    ]
    assert any(isinstance(callback, RichModelSummary) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    one = build(run_arguments("run", "--trainer.callbacks", "LearningRateMonitor")).trainer
    assert "LearningRateMonitor" in [type(c).__name__ for c in one.callbacks]  # type: ignore[attr-defined]


def test_a_null_and_a_number_where_there_is_none(run_arguments, tmp_path: Path, capsys) -> None:
    path = tmp_path / "c.yaml"
    for text, message in (
        ("throughput: {every_n_steps: null}", "throughput.every_n_steps must not be null"),
        ("memory: 3", "memory holds settings, each with its name, and not 3"),
    ):
        path.write_text(text)
        line = fails(["pretrain", *run_arguments("run"), "--config", str(path)], capsys)
        assert message in line


def test_the_start_says_what_is_trained(run_arguments, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of parameters, the sizes that followed, and a warm-up that does not end."""
    arguments = run_arguments("run", "--trainer.max_steps=2", "--model.schedule.warmup_steps=7")
    at = arguments.index("--model.backbone.intermediate_size")
    arguments[at : at + 2] = ["--model.backbone.model_type", "llama"]
    assert main(["pretrain", *arguments, "--laboratory.enabled=false"]) == 0
    lines = capsys.readouterr().err
    # 2 blocks of 4 matrices of 16 x 16 and 3 of 16 x 43, 5 norms, 320 embeddings
    assert "headless: llama: 11,376 parameters, 5,120 of them token embeddings\n" in lines
    assert "intermediate_size 43, num_key_value_heads 2, head_dim 8: from the width" in lines
    assert "the warm-up of 7 steps is as long as the run of 2 or longer" in lines
    assert "comes to 25% of model.optimizer.lr" in lines


def test_devices_given_again_replace_the_first(run_arguments) -> None:
    cli = build(run_arguments("run", "--trainer.devices", "2", "--trainer.devices", "1"))
    assert cli.config.trainer.devices in (1, "1")
    assert cli.trainer.world_size == 1


def test_more_steps_between_validations_than_an_epoch_has(run_arguments, capsys) -> None:
    more = ("--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1000000")
    line = fails(["pretrain", *run_arguments("run", *more)], capsys)
    assert "error: trainer.val_check_interval (1000000) must be less than or equal to" in line


def test_a_progress_bar_of_the_users_own(run_arguments) -> None:
    """Lightning refuses two."""
    arguments = run_arguments("run", "--trainer.callbacks", "TQDMProgressBar")
    at = arguments.index("--trainer.enable_progress_bar")
    trainer = build(arguments[:at] + arguments[at + 2 :]).trainer
    assert isinstance(trainer.progress_bar_callback, TQDMProgressBar)


def test_a_whole_number_is_read_as_one() -> None:
    """Whichever library wrote float | int first: 1 is a batch and 1.0 all of them."""
    action = SimpleNamespace(_typehint=Union[float, int, None])  # noqa: UP007 - in this order
    _integers_first(SimpleNamespace(_actions=[action, SimpleNamespace()]))
    assert get_args(action._typehint)[:2] == (int, float)
