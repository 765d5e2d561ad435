"""Hugging Face models from a directory or the hub: safetensors only, errors in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.utils import logging

from headless.errors import HeadlessError, one_line
from headless.files import check_sums
from headless.models.backbone import BackboneConfig, or_eager

LM_CLASSES = ("AutoModelForCausalLM", "AutoModelForMaskedLM")
# Fields of a config that say what a call returns or which ids a tokenizer has.
_NOT_ARCHITECTURE = {"model_type", "tie_word_embeddings", "vocab_size", "output_attentions"}


class NoHeadError(HeadlessError):
    """A model makes hidden states and no logits, where an LM head was asked for."""

    def __init__(self, place: str, kind: str) -> None:
        super().__init__(
            f"{place} is a {kind} without an LM head: it has hidden states (headless analyze and "
            "neighbors look at them) and no logits; a decoder may be given its input embeddings as "
            "a head with --head tied"
        )


def load_pretrained(
    place: str,
    auto_class: Any = AutoModel,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    attn_implementation: str = "sdpa",
    tied: bool = False,
) -> PreTrainedModel:
    """A Hugging Face model in evaluation mode.

    Args:
        place: a directory, or a name on the hub.
        auto_class: `AutoModel`, `AutoModelForCausalLM`, ...
        tied: give a model that was saved without an LM head its input embeddings as one.

    Raises:
        NoHeadError: a class with an LM head for weights without one.
        HeadlessError: no such model, a damaged or pickled one, foreign code that was not allowed.
    """
    check_sums(Path(place))
    config: Any = load_config(place, trust_remote_code=trust_remote_code)
    with_head = auto_class.__name__ in LM_CLASSES
    if with_head and is_bare(config):
        # Its class would tie a head, or draw one, without a word.
        if not tied:
            raise NoHeadError(place, str(config.architectures[0]))
        config.tie_word_embeddings, config.auto_map = True, {}
    classes = getattr(config, "auto_map", None) or {}
    if auto_class.__name__ in classes and not trust_remote_code:
        raise HeadlessError(
            f"{place} comes with Python code of its own ({classes[auto_class.__name__]}), without "
            "which its head is not what was trained: read it, then give --trust_remote_code true"
        )
    open_it = partial(
        auto_class.from_pretrained,
        place,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    try:
        with without_bars():
            model, report = or_eager(open_it, attn_implementation)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        raise HeadlessError(f"no model can be loaded from {place!r}: {_shorten(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    inside = f"{model.base_model_prefix}."
    if missing and with_head and not any(key.startswith(inside) for key in missing):
        raise NoHeadError(place, str((getattr(config, "architectures", None) or ["model"])[0]))
    if missing:
        raise HeadlessError(
            f"the weights in {place!r} are not a {type(model).__name__}'s: {len(missing)} are "
            f"missing, e.g. {missing[0]}"
        )
    return model.eval()


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers without its progress bars: they are for models of gigabytes."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_config(place: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of a Hugging Face model, refused where nothing is there or weights are pickled."""
    path = Path(place)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise HeadlessError(
                f"{place} is neither a run directory (no config.yaml) nor a Hugging Face model (no "
                "config.json)"
            )
        if not any(path.glob("*.safetensors")) and (pickles := sorted(path.glob("*.bin"))):
            raise HeadlessError(
                f"{pickles[0]} is a pickle, which can run any code when it is loaded: refused; "
                "save the model again as safetensors"
            )
    elif path.exists() or place.startswith((".", "/", "~")) or place.count("/") > 1:
        raise HeadlessError(f"{place} is no model: name a run, a checkpoint or a directory")
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        raise HeadlessError(f"there is no model {place!r}: {_shorten(error)}") from error


def is_bare(config: Any) -> bool:
    """Whether a config says that its model was saved without any head: as `AutoModel` has it."""
    bare = MODEL_MAPPING_NAMES.get(config.model_type)
    names = getattr(config, "architectures", None) or []
    return bool(names) and set(names) <= ({bare} if isinstance(bare, str) else set(bare or ()))


def transformer_of(place: str) -> str:
    """Where the Transformer of a sentence encoder lies, if its modules have directories.

    Such a directory has a `modules.json`; older ones keep the weights in `0_Transformer`.
    """
    path = Path(place)
    listed = path / "modules.json"
    if not listed.is_file() or (path / "config.json").is_file():
        return place
    try:
        modules = json.loads(listed.read_text(encoding="utf-8"))
        folders = [str(module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HeadlessError(
            f"{listed} is no list of a sentence encoder's modules: {_shorten(error)}"
        ) from error
    holds_config = (f for f in folders if f and (path / f / "config.json").is_file())
    return next((str(path / folder) for folder in holds_config), place)


def architecture(config: PretrainedConfig, attn_implementation: str = "sdpa") -> BackboneConfig:
    """The same architecture as plain values, so that a checkpoint needs no other file."""
    known = AutoConfig.for_model(config.model_type)
    everywhere = set(PretrainedConfig().to_dict()) | _NOT_ARCHITECTURE
    fields = {
        name: value
        for name, value in config.to_dict().items()
        if hasattr(known, name) and name not in everywhere and not name.endswith("_token_id")
    }
    return BackboneConfig(
        model_type=config.model_type, attn_implementation=attn_implementation, extra=fields
    )


def as_backbone(model: PreTrainedModel) -> PreTrainedModel:
    """A pretrained `AutoModel` as `build_backbone` would have made it: no pooler, no padding id."""
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010 - a module's place, which may be empty
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None  # its row would get no gradient
    model.config.pad_token_id = None
    return model


def _shorten(error: Exception) -> str:
    return shorten(one_line(error), 300, placeholder="...")
