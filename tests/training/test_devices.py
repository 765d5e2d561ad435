"""A machine with Apple's GPU, which has no float64, and machines without."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.accelerators import mps as fabric_mps
from lightning.fabric.accelerators.mps import MPSAccelerator as FabricMPSAccelerator
from lightning.pytorch.accelerators import CPUAccelerator, MPSAccelerator
from transformers import GPT2Config, GPT2LMHeadModel

from headless.downstream.classification.training import Finetuning
from headless.downstream.loading import load
from headless.downstream.options import Recipe
from headless.errors import HeadlessError
from headless.progress import Display
from headless.training.assembly import build


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning takes this machine for one."""
    for accelerator in (MPSAccelerator, FabricMPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda *_: True))
    monkeypatch.setattr(fabric_mps, "_get_all_available_mps_gpus", lambda: [0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_run_is_made_on_the_cpu(mac, run_arguments) -> None:
    cli = build(run_arguments("run", "--trainer.accelerator", "auto"))
    assert isinstance(cli.trainer.accelerator, CPUAccelerator)


@pytest.mark.parametrize("name", ["mps", "gpu"])
def test_asked_for_by_name_it_is_refused(mac, run_arguments, name) -> None:
    with pytest.raises(HeadlessError, match=f"accelerator {name}: .* no float64.* take cpu"):
        build(run_arguments("run", "--trainer.accelerator", name))


def test_a_classifier_is_trained_on_the_cpu(mac, tmp_path) -> None:
    finetuning: Any = SimpleNamespace(recipe=Recipe())
    trainer = Finetuning._trainer(finetuning, tmp_path, Display(False))
    assert isinstance(trainer.accelerator, CPUAccelerator)


def test_a_model_that_is_read_is_not_put_there(tmp_path, run_arguments) -> None:
    """evaluate, analyze, generate and neighbors read their models so."""
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16)).save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(HeadlessError, match="'mps' cannot be used: .* no float64.* take cpu"):
        load(tmp_path / "model", device="mps")
