"""A call leaves warning filters, log levels, variables and random states as they were."""

import logging
import os
import random
import warnings

import numpy as np
import pytest
import torch

from headless.isolation import isolated, usable_cores


def state() -> tuple:
    """What a caller would see changed."""
    return (
        list(warnings.filters),
        {name: logging.getLogger(name).level for name in ("", "lightning.pytorch", "transformers")},
        dict(os.environ),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


@isolated()
def disturb(*, fail: bool) -> None:
    warnings.filterwarnings("ignore", "anything")
    logging.getLogger("lightning.pytorch").setLevel(logging.CRITICAL)
    logging.root.setLevel(logging.DEBUG)
    os.environ["HEADLESS_TEST"] = "1"
    os.environ.pop("HEADLESS_KEPT")
    for generator in (random, np.random):
        generator.seed(3)
    torch.manual_seed(3)
    if fail:
        raise ValueError("after all of it")


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left_changed(monkeypatch: pytest.MonkeyPatch, fail: bool) -> None:
    monkeypatch.setenv("HEADLESS_KEPT", "yes")
    before = state()
    try:
        disturb(fail=fail)
    except ValueError:
        assert fail
    assert state() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_cores_are_those_that_the_process_may_run_on() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, mine)
