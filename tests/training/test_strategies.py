"""What `trainer.strategy` means; what the strategies compute is test_distributed's."""

import inspect
import json
from collections.abc import Callable

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch.nn.parallel import DistributedDataParallel

import headless.training.assembly
from headless.errors import HeadlessError
from headless.training.assembly import build
from headless.training.compat import ShardedStrategy, ddp_options, tune
from headless.training.devices import choose_strategy, cluster_plugins


def test_fsdp_is_ours() -> None:
    assert isinstance(choose_strategy("fsdp"), ShardedStrategy)
    assert choose_strategy("ddp") == "ddp"
    for older in (FSDPStrategy(), "fsdp_cpu_offload"):
        with pytest.raises(HeadlessError, match="trainer.strategy fsdp"):
            choose_strategy(older)


@pytest.mark.parametrize("strategy", ["ddp", "auto", "ddp_find_unused_parameters_true"])
def test_ddp_sends_no_buffers(run_arguments: Callable[..., list[str]], strategy: str) -> None:
    arguments = run_arguments("x", "--trainer.devices", "2", "--trainer.strategy", strategy)
    chosen = build(arguments).trainer.strategy
    assert isinstance(chosen, DDPStrategy)
    assert ddp_options().items() <= chosen._ddp_kwargs.items()


def test_a_users_settings_stay() -> None:
    for theirs in ({"broadcast_buffers": True}, {"gradient_as_bucket_view": False}):
        strategy = DDPStrategy(**theirs)
        tune(strategy)
        assert theirs.items() <= strategy._ddp_kwargs.items()
        assert not {"broadcast_buffers", "forward_sync_buffers"} <= strategy._ddp_kwargs.keys()


def test_options_are_known_to_ddp() -> None:
    assert ddp_options().keys() <= inspect.signature(DistributedDataParallel).parameters.keys()


def test_slurm_requeues_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_plugins() == []
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    (environment,) = cluster_plugins()
    assert environment.auto_requeue is False


def test_a_users_own_plugins_are_taken(
    run_arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning refuses two of a kind: ours are for those who have none."""
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    # As on a GPU, where there is a precision of our choice.
    monkeypatch.setattr(headless.training.assembly, "choose_precision", lambda *_: "32-true")
    plugins = [
        {"class_path": "lightning.pytorch.plugins.environments.LightningEnvironment"},
        {"class_path": "lightning.pytorch.plugins.DoublePrecision"},
    ]
    trainer = build(run_arguments("x", "--trainer.plugins", json.dumps(plugins))).trainer
    assert trainer.precision == "64-true"
    assert not isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment)
