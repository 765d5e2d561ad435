"""Runs that go over from the headless objective to the softmax of its calibrated head."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from headless.errors import HeadlessError
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.hugging_face import choose_head, to_hugging_face
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit
from headless.training.validate import validate

SWITCH = ("--model.switch_at", "0.5", "--trainer.val_check_interval", "1", "--run.resume", "true")
SWITCH += ("--checkpoint.every_n_steps", "2", "--model.optimizer.lr", "1e-2")


class Killed(BaseException):
    pass


class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # noqa: ANN001
        if trainer.global_step == self.step:
            raise Killed


def points(path: Path, *keys: str) -> dict[str, list[float]]:
    found = read_metrics(path / "metrics.jsonl")
    return {key: [p[key] for p in found if key in p] for key in keys}


def test_there_is_no_spike_and_both_sides_resume(
    run_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    whole = build(run_arguments("whole", *SWITCH))
    fit(whole)
    plain = build(run_arguments("plain", *SWITCH, "--model.switch_at", "null"))
    fit(plain)
    runs = tmp_path / "runs"
    keys = ("val/nll", "val/accuracy", "train/loss", "val/loss")
    ours, theirs = (points(runs / name, *keys) for name in ("whole", "plain"))
    assert len(ours["val/nll"]) == len(theirs["val/nll"]) == 12
    # Up to the switch it is the plain run, though a bias waits in it; then a better one, gently.
    assert all(ours[key][:6] == theirs[key][:6] for key in keys)
    steps = [abs(a - b) for a, b in zip(ours["val/nll"], ours["val/nll"][1:], strict=False)]
    assert steps[5] < 1.5 * steps[4]
    assert ours["val/nll"][-1] < ours["val/nll"][5]
    assert ours["val/nll"][6:] != theirs["val/nll"][6:]
    # The loss is another one from there on: that of the validation's head.
    assert ours["val/loss"][6:] == pytest.approx(ours["val/nll"][6:], rel=1e-4)

    name = "stopped"
    for step in (3, 9):  # a checkpoint of 2 steps, and one of 8
        cli = build(run_arguments(name, *SWITCH))
        cli.trainer.callbacks.insert(1, Kill(step))
        with pytest.raises(Killed):
            fit(cli)
    again = build(run_arguments(name, *SWITCH))
    fit(again)
    for (key, a), b in zip(
        whole.model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), key
    assert points(runs / name, *keys) == ours


def test_a_checkpoint_knows_its_head(
    run_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    more = ("--model.objective.temperature", "0.5", *SWITCH)
    cli = build(run_arguments("run", *more))
    fit(cli)
    run = tmp_path / "runs/run"
    module = PretrainingModule.from_checkpoint(run)
    kind, head = choose_head(module, "auto")
    assert kind == "trained"
    ids = torch.arange(12)[None]
    with torch.no_grad():
        hidden = module.backbone(input_ids=ids).last_hidden_state
        bias = module.objective.first_bias_V + module.objective.bias_V
        expected = hidden @ (module.embedding_VD / 0.5).T + bias
        torch.testing.assert_close(module(ids), expected, rtol=1e-5, atol=1e-5)
        converted = to_hugging_face(module.backbone, head, embedding_VD=module.embedding_VD)
        found = converted.model(input_ids=ids).logits.log_softmax(-1)
    torch.testing.assert_close(found, expected.log_softmax(-1), rtol=1e-4, atol=1e-4)
    last = points(run, "val/nll")["val/nll"][-1]
    assert validate(run)["val/nll"] == pytest.approx(last, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (("--model.objective", "CrossEntropy"), "switch_at needs"),
        (("--model.switch_at", "1.5"), "between 0 and 1"),
        (("--trainer.max_steps", "-1", "--trainer.max_time", "00:00:00:05"), "switch_at needs"),
    ],
)
def test_what_cannot_be_is_refused(run_arguments, more: tuple[str, ...], match: str) -> None:
    with pytest.raises(HeadlessError, match=match):
        fit(build(run_arguments("run", *SWITCH, *more)))
