"""What a run that goes on may change: its settings then and now, leaf by leaf."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from headless.structured import flatten

# They look at the training, keep it or show it: the trained model and its scores are the same.
# "geometry" was a monitor of its own: older runs' configs have it.
OBSERVING = (
    *("checkpoint", "throughput", "memory", "geometry", "laboratory", "samples"),
    *("data.num_workers", "data.verify"),
    *(
        f"trainer.{name}"
        for name in (
            *("logger", "log_every_n_steps", "enable_autolog_hparams", "model_registry"),
            *("enable_progress_bar", "enable_model_summary", "enable_checkpointing"),
            *("num_sanity_val_steps", "val_check_interval", "check_val_every_n_epoch"),
            *("limit_test_batches", "limit_predict_batches"),
        )
    ),
)
# They decide where and how long a run trains, and what is looked at meanwhile.
CHANGEABLE = (
    *OBSERVING,
    *("run", "data.val_batch_size", "model.val_rows"),
    *("model.compile", "model.backbone.attn_implementation"),
    *(
        f"trainer.{name}"
        for name in (
            *("accelerator", "strategy", "devices", "num_nodes", "sync_batchnorm", "plugins"),
            *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
            *("limit_val_batches", "callbacks", "profiler", "detect_anomaly"),
            *("default_root_dir", "barebones", "deterministic", "benchmark", "inference_mode"),
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
        then, now = ("null" if value is None else value for value in (self.then, self.now))
        return f"{self.name} {then} → {now}"

    @property
    def is_used(self) -> bool:
        """Whether training goes on with it, as another training."""
        return is_among(self.name, USED)

    @property
    def is_refused(self) -> bool:
        """Whether it makes another run."""
        return not (self.is_same or self.is_used or is_among(self.name, CHANGEABLE))


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The leaves in which two configs differ; one that is missing counts as null."""
    old, new = _leaves(then), _leaves(now)
    both = (Change(name, old.get(name), new.get(name)) for name in {**old, **new})
    return [change for change in both if change.then != change.now]


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted name; a tuple is a list, and an empty mapping is nothing."""
    leaves = {k: list(v) if isinstance(v, tuple) else v for k, v in flatten(config)}
    return {name: value for name, value in leaves.items() if value != {}}


def is_among(name: str, settings: tuple[str, ...]) -> bool:
    """Whether a setting is one of some, or below one of them."""
    return any(name == known or name.startswith(f"{known}.") for known in settings)
