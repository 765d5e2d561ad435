"""The options of `headless pretrain` by name: a wrong one is answered before torch is imported.

The lists are the live parser's, which takes seconds to make; a test compares them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headless.cli.parsing import suggest
from headless.errors import HeadlessError
from headless.structured import read_yaml

NAMES: dict[str, str] = {
    "": "seed_everything",
    "checkpoint": "every_n_steps keep",
    "data": "batch_size mask_probability num_workers path sequence_length task val_batch_size "
    "verify",
    "geometry": "every_n_steps num_sequences",
    "laboratory": "at_end enabled every_n_validations num_sequences seed tokens",
    "memory": "every_n_steps",
    "model": "compile freeze_backbone init_from init_head objective",
    "model.backbone": "attn_implementation extra hidden_size intermediate_size "
    "max_position_embeddings model_type num_attention_heads num_hidden_layers preset",
    "model.optimizer": "betas decay_embeddings eps lr weight_decay",
    "model.schedule": "decay_fraction floor name warmup_steps",
    "run": "group name overwrite project resume root tags wandb",
    "samples": "every_n_steps max_new_tokens prompts seed temperature top_k",
    "throughput": "every_n_steps peak_flops warmup_steps",
    "trainer": "accelerator accumulate_grad_batches barebones benchmark callbacks "
    "check_val_every_n_epoch default_root_dir detect_anomaly deterministic devices "
    "enable_autolog_hparams enable_checkpointing enable_model_summary "
    "enable_progress_bar fast_dev_run gradient_clip_algorithm gradient_clip_val "
    "inference_mode limit_predict_batches limit_test_batches limit_train_batches "
    "limit_val_batches log_every_n_steps logger max_epochs max_steps max_time "
    "min_epochs min_steps model_registry num_nodes num_sanity_val_steps "
    "overfit_batches plugins precision profiler reload_dataloaders_every_n_epochs "
    "strategy sync_batchnorm use_distributed_sampler val_check_interval",
}
# Their values are classes or mappings with keys of their own: the live parser knows those.
OPEN = (
    *("model.objective", "model.backbone.extra", "trainer.accelerator", "trainer.callbacks"),
    *("trainer.logger", "trainer.max_time", "trainer.plugins", "trainer.profiler"),
    *("trainer.strategy", "trainer.val_check_interval"),
)
LINKED = {
    "model.vocab_size": "it is the data's",
    "model.eos_token_id": "it is the data's",
    "model.sequence_length": "set data.sequence_length",
    "model.task": "set data.task",
    "data.seed": "set seed_everything",
}
OPTIONS = tuple(
    f"{group}.{name}" if group else name for group, names in NAMES.items() for name in names.split()
)
GROUPS = {".".join(key.split(".")[:n]) for key in OPTIONS for n in range(1, key.count(".") + 1)}
OTHER = ("config", "help", "print_config")


def check_options(arguments: Sequence[str]) -> None:
    """Refuse options and keys of config files that do not exist, and config files that do not.

    Raises:
        HeadlessError: names the first one and what may have been meant.
    """
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            continue
        name = option[2:].removesuffix("+")
        if name == "config":
            _check_file(value if equals else next(waiting, ""))
        elif name in LINKED:
            raise _decided(option, name)
        elif not _is_known(name):
            raise HeadlessError(suggest(f"unrecognized arguments: {option}", [*OPTIONS, *OTHER]))


def _check_file(place: str) -> None:
    if not place or "://" in place or any(sign in place for sign in "{:\n"):
        return  # none, one on the network, or the text of a config
    path = Path(place)
    if not path.is_file():
        raise HeadlessError(f"there is no config file {place}")
    for name in _keys(read_yaml(path)):
        if name in LINKED:
            raise _decided(f"{place}: {name}", name)
        if not _is_known(name):
            raise HeadlessError(
                suggest(f"{place}: key '{name}' is not expected", [*OPTIONS, *GROUPS])
            )


def _keys(values: dict[Any, Any], above: str = "") -> Iterator[str]:
    """The dotted keys of a config, down to where the live parser knows better."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value and name in GROUPS and name not in OPEN:
            yield from _keys(value, name)
        else:
            yield name


def _is_known(name: str) -> bool:
    is_open = any(name == key or name.startswith(f"{key}.") for key in OPEN)
    return is_open or name in OPTIONS or name in GROUPS or name in OTHER


def _decided(place: str, name: str) -> HeadlessError:
    return HeadlessError(f"{place} would be overruled: {LINKED[name]}, so leave it out")
