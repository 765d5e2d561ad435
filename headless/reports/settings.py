"""Which settings of a resolved config count: all that is not known to leave a run's numbers alone.

A setting that nobody thought of counts. What does not count is named here, with its reason.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headless.pages.numbers import MISSING
from headless.runs.resume import is_among

OBJECTIVE = "model.objective"  # what is compared
Config = Mapping[str, Any]  # a resolved config with dotted keys

# Seeds, labels and places: a comparison tells runs and data apart by what they hold.
NAMES = (
    *("seed_everything", "data.seed", "run", "config", "ckpt_path", "trainer.default_root_dir"),
    "data.path",  # the data's digest counts
    "model.init_from",  # what the source was counts
)
# Looks at the training, keeps it or shows it: the trained model and its scores are the same.
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
STEP_FACTORS = (
    *("data.batch_size", "trainer.accumulate_grad_batches"),
    *("trainer.devices", "trainer.num_nodes"),
)


def observes(key: str, config: Config) -> bool:
    """Whether a setting can change neither the trained model nor its scores."""
    if key == "data.val_batch_size":  # with it the text that is scored grows, if that is limited
        limit = config.get("trainer.limit_val_batches")
        return limit is None or (isinstance(limit, float) and limit == 1.0)
    return is_among(key, OBSERVING)


def counting(config: Config) -> dict[str, Any]:
    """The settings that make a recipe."""
    return {
        key: value
        for key, value in config.items()
        if value is not None and not is_among(key, NAMES) and not observes(key, config)
    }


def differing(configs: Sequence[Config]) -> dict[str, list[str]]:
    """The keys whose values are not the same in all of them, and each one's value as a text.

    What a config does not have is the same as what it leaves open (null): another version wrote it.
    """
    return {
        key: [text(config[key]) if key in config else MISSING for config in configs]
        for key in sorted({key for config in configs for key in config})
        if len({canonical(config.get(key)) for config in configs}) > 1
    }


def sequences_per_step(config: Config) -> int | None:
    """Sequences of one optimizer step on all devices together; None where that is not known."""
    product = 1
    for key in STEP_FACTORS:
        value = config.get(key)
        value = 1 if value is None else len(value) if isinstance(value, list) else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            return None
        product *= value
    return product


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def canonical(value: Any) -> str:
    """A text that two values share where they are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        value = float(value)
    return json.dumps(value, default=str, sort_keys=True)
