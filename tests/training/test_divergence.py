"""A run whose loss is lost says so, before anything that looks at its weights dies of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from headless.errors import HeadlessError
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

LOOKS = {
    "samples": ("--samples.every_n_steps", "1"),
    "laboratory": ("--laboratory.enabled", "true", "--trainer.val_check_interval", "1"),
    "checkpoint": ("--checkpoint.every_n_steps", "1"),
    "validation": ("--trainer.val_check_interval", "1"),
    "the end": (),
}


class Spoil(Callback):
    """After a step that was right the weights are such that no forward pass survives."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.backbone.final_layer_norm.weight.fill_(torch.nan)


@pytest.mark.parametrize("look", LOOKS)
def test_the_line_comes_before_a_look_dies(
    run_arguments: Callable[..., list[str]], tmp_path: Path, look: str
) -> None:
    """The step's own loss and gradient were finite: only what is due now can find it."""
    quiet = ("--laboratory.enabled", "false") if look != "laboratory" else ()
    cli = build(run_arguments("run", "--trainer.max_steps", "2", *quiet, *LOOKS[look]))
    cli.trainer.callbacks.insert(1, Spoil(2))
    with pytest.raises(HeadlessError, match="the loss is not a finite number at step 3"):
        fit(cli)
    run = tmp_path / "runs" / "run"
    points = read_metrics(run / "metrics.jsonl")
    values = [v for p in points for v in p.values() if isinstance(v, float)]
    assert all(v == v for v in values)  # noqa: PLR0124 - no NaN was logged
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert checkpoint.is_file() == (look == "checkpoint")
    if look == "checkpoint":  # the last good one is kept
        assert torch.load(checkpoint, weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_the_update_of_a_lost_step_is_not_made(
    run_arguments: Callable[..., list[str]], part: str
) -> None:
    """Named is the first step that went wrong, not the one in which somebody looked."""
    cli = build(run_arguments("run", "--laboratory.enabled", "false"))
    module = cli.model
    score = module._score

    def spoiled(*arguments: Any) -> Any:
        output = score(*arguments)
        if module.trainer.global_step != 3:
            return output
        if part == "loss":
            return output._replace(loss=output.loss * torch.nan)
        output.loss.register_hook(lambda gradient: gradient * torch.inf)
        return output

    module._score = spoiled
    with pytest.raises(HeadlessError, match="the loss is not a finite number at step 4"):
        fit(cli)
    assert cli.trainer.global_step == 3
    assert all(p.isfinite().all() for p in module.parameters())
