"""Precisions: which ones training is right in, and that scores do not depend on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from headless.errors import HeadlessError
from headless.models.backbone import BackboneConfig
from headless.objectives import CrossEntropy, LMHead
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.devices import check_precision
from headless.training.evaluation import head_scores
from headless.training.module import PretrainingModule
from headless.training.optim import check_clipping
from headless.training.pretrain import fit


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", "16"])
def test_what_trains_wrongly_is_refused(run_arguments: Any, precision: str) -> None:
    with pytest.raises(HeadlessError, match="is not supported.*take bf16-mixed"):
        build(run_arguments("run", "--trainer.precision", precision))


def test_every_name_of_lightnings_is_decided() -> None:
    for name in ("32-true", "bf16-mixed", "64-true"):
        assert check_precision(name) == name
    assert [check_precision(x) for x in (64, "32", "bf16")] == ["64-true", "32-true", "bf16-mixed"]
    for name in ("transformer-engine", "transformer-engine-float16", 16):
        with pytest.raises(HeadlessError, match="not supported"):
            check_precision(name)


def test_a_trainer_of_ones_own_is_asked_too() -> None:
    module = PretrainingModule(
        CrossEntropy(), BackboneConfig(preset="pythia-14m"), vocab_size=30, sequence_length=8
    )
    for options in ({"precision": "bf16-true"}, {"gradient_clip_val": -1.0}):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
        module.trainer = trainer
        with pytest.raises(HeadlessError):
            module.setup("fit")


@pytest.mark.parametrize("value", ["-1", "-1e9", ".nan"])
def test_a_clipping_that_turns_gradients_around_is_refused(run_arguments: Any, value: str) -> None:
    with pytest.raises(HeadlessError, match="gradient_clip_val must be a positive number"):
        build(run_arguments("run", f"--trainer.gradient_clip_val={value}"))


def test_no_clipping() -> None:
    check_clipping(0)
    check_clipping(None)
    check_clipping(float("inf"))


def test_zero_clips_nothing_and_values_are_clipped(run_arguments: Any, tmp_path: Path) -> None:
    """By value also under bf16-mixed, where Lightning's own refuses a fused optimizer."""
    weights = {}
    one = ("--trainer.max_steps", "1", "--laboratory.enabled", "false")
    for name, options in {
        "none": (),
        "zero": ("--trainer.gradient_clip_val", "0"),
        "value": (
            *("--trainer.gradient_clip_val", "1e-12", "--trainer.precision", "bf16-mixed"),
            *("--trainer.gradient_clip_algorithm", "value"),
        ),
    }.items():
        cli = build(run_arguments(name, *one, *options))
        before = cli.model.embedding_VD.detach().clone()
        fit(cli)
        weights[name] = cli.model.embedding_VD.detach() - before
    assert torch.equal(weights["none"], weights["zero"])
    # AdamW divides a gradient by its size: far below its eps, 1e-8, the step is as small.
    assert weights["none"].abs().max() > 1e-4
    assert 0 < weights["value"].abs().max() < 1e-6


@pytest.mark.parametrize("bias", [None, torch.zeros(3)], ids=["bare", "with a bias"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_tie_of_bf16_is_none_of_the_scores(bias: Any, autocast: bool) -> None:
    """In bf16 several tokens share the largest logit, and argmax would take the first of them."""
    hidden_ND = torch.tensor([[100.0, 1.0]])
    head = LMHead(torch.tensor([[1.0, 0.0], [1.0, 0.25], [0.0, 0.0]]), bias)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = head_scores(
            hidden_ND if autocast else hidden_ND.bfloat16(),
            torch.tensor([1]),
            head,
            torch.zeros(3, dtype=torch.long),
        )
    assert found["correct"] == 1
    expected = torch.tensor([100.0, 100.25, 0.0]).log_softmax(0)[1]
    assert found["nll_K"].sum() == pytest.approx(-float(expected), rel=1e-6)


def test_accuracy_under_bf16_mixed_is_that_of_float32(
    run_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """What is logged is what float32 gives from the same hidden states."""
    more = ("--trainer.precision", "bf16-mixed", "--trainer.max_steps", "3")
    more += ("--trainer.val_check_interval", "3", "--laboratory.enabled", "false")
    cli = build(run_arguments("run", *more, objective="CrossEntropy"))
    fit(cli)
    (point,) = [p for p in read_metrics(tmp_path / "runs/run/metrics.jsonl") if "val/accuracy" in p]
    module = cli.model.eval()
    correct = tokens = 0
    nll = 0.0
    for batch in cli.datamodule.val_dataloader():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden_ND = module.scored_states(batch["input_ids"], None)
        targets_N = batch["targets"].flatten()
        valid_N = targets_N >= 0
        logits_NV = hidden_ND.float() @ module.objective.weight_VD.detach().T
        correct += int((logits_NV.argmax(-1) == targets_N)[valid_N].sum())
        own_N = logits_NV.log_softmax(-1).gather(1, targets_N.clamp(min=0)[:, None])[:, 0]
        nll -= float(own_N[valid_N].double().sum())
        tokens += int(valid_N.sum())
    assert point["val/accuracy"] == pytest.approx(correct / tokens, abs=1e-9)
    assert point["val/nll"] == pytest.approx(nll / tokens, rel=1e-6)
