"""Observers observe."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from headless.callbacks.laboratory import LaboratoryMonitor
from headless.callbacks.memory import MemoryMonitor
from headless.callbacks.periodic import evaluating
from headless.callbacks.samples import SampleWriter
from headless.callbacks.throughput import ThroughputMonitor

MONITORS = (LaboratoryMonitor, MemoryMonitor, SampleWriter, ThroughputMonitor)


class RandomNumbers(Callback):
    """The state of every generator after each step."""

    def __init__(self) -> None:
        self.states: list[tuple] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        numpy_state = np.random.get_state()[1].tobytes()  # noqa: NPY002
        self.states.append((torch.get_rng_state(), numpy_state, random.getstate()))


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_training_is_the_same_with_and_without_them(train, accumulate) -> None:
    """Bit for bit, with dropout, at every step."""

    def remove(cli) -> None:
        callbacks = cli.trainer.callbacks
        cli.trainer.callbacks = [c for c in callbacks if not isinstance(c, MONITORS)]
        assert len(callbacks) - len(cli.trainer.callbacks) == len(MONITORS)

    every_step = [
        *(
            "--laboratory.enabled",
            "true",
            "--laboratory.every_n_validations",
            "1",
            "--samples.every_n_steps",
            "1",
        ),
        *("--throughput.every_n_steps", "1", "--memory.every_n_steps", "1"),
        *("--trainer.accumulate_grad_batches", accumulate, "--run.wandb", "offline"),
    ]
    numbers = [RandomNumbers(), RandomNumbers()]
    watched = train("watched", *every_step, callbacks=numbers[:1])
    alone = train("alone", *every_step, callbacks=numbers[1:], change=remove)
    assert watched.with_key("geometry/anisotropy/embedding")
    assert not alone.with_key("geometry/anisotropy/embedding")
    ours, theirs = watched.cli.model.state_dict(), alone.cli.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for (ours_t, *ours_rest), (theirs_t, *theirs_rest) in zip(
        numbers[0].states, numbers[1].states, strict=True
    ):
        assert torch.equal(ours_t, theirs_t)
        assert ours_rest == theirs_rest
    assert len({state[0].numpy().tobytes() for state in numbers[0].states}) > 1  # dropout draws


def test_every_part_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()
    before = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in model.modules()] == before
    assert torch.is_grad_enabled()
