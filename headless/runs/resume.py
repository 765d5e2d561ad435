"""What a run that goes on may change: its settings then and now, leaf by leaf."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# They decide where and how long a run trains, and what is looked at meanwhile.
BESIDE = (
    *("run", "checkpoint", "throughput", "memory", "geometry", "laboratory", "samples"),
    *("data.num_workers", "data.verify", "data.val_batch_size"),
    *("model.compile", "model.backbone.attn_implementation"),
    *(
        f"trainer.{name}"
        for name in (
            *("accelerator", "strategy", "devices", "num_nodes", "sync_batchnorm", "plugins"),
            *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
            *("limit_val_batches", "limit_test_batches", "limit_predict_batches"),
            *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
            *("logger", "log_every_n_steps", "callbacks", "profiler", "detect_anomaly"),
            *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
            *("enable_autolog_hparams", "model_registry", "default_root_dir", "barebones"),
            *("deterministic", "benchmark", "inference_mode"),
        )
    ),
)
# They are used from the next step on.
USED = (
    *(f"model.optimizer.{name}" for name in ("lr", "betas", "eps", "weight_decay")),
    *("model.schedule", "data.batch_size", "trainer.precision"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val"),
    "trainer.gradient_clip_algorithm",
)


class Change(NamedTuple):
    """A setting that is another now."""

    name: str
    then: Any
    now: Any
    is_same: bool = False  # written in another way, like the new place of the same data

    def __str__(self) -> str:
        return f"{self.name} {_show(self.then)} → {_show(self.now)}"

    @property
    def is_used(self) -> bool:
        """Whether training goes on with it, as another training."""
        return _among(self.name, USED)

    @property
    def is_refused(self) -> bool:
        """Whether it makes another run."""
        return not (self.is_same or self.is_used or _among(self.name, BESIDE))


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The leaves in which two configs differ; one that is missing counts as null."""
    old, new = dict(_leaves(then)), dict(_leaves(now))
    names = [*old, *(name for name in new if name not in old)]
    found = [Change(name, old.get(name), new.get(name)) for name in names]
    return [change for change in found if change.then != change.now]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _among(name: str, settings: tuple[str, ...]) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in settings)


def _show(value: Any) -> str:
    return "null" if value is None else str(value)
