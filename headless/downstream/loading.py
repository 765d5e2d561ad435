"""One way to open a model: a run, a checkpoint, a Hugging Face directory or a hub name."""

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from headless.downstream.export import DESCRIPTION, UNIGRAM_FILE
from headless.downstream.language_model import NO_HEAD, LanguageModel, Task
from headless.downstream.tokenizers import complete_config, load_model_tokenizer, load_run_tokenizer
from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.models.backbone import is_causal, is_custom
from headless.models.pretrained import (
    NoHeadError,
    as_backbone,
    is_bare,
    load_config,
    load_pretrained,
    transformer_of,
)
from headless.structured import read_json
from headless.training.checkpoint_io import find_checkpoint, is_run, run_of
from headless.training.devices import choose_device
from headless.training.hugging_face import HeadName, language_model
from headless.training.module import PretrainingModule

TOKENIZER_FILES = ("tokenizer*", "vocab.*", "*.model")  # a directory with one has some of them


@isolated()
def load(
    place: str | Path | LanguageModel,
    *,
    head: HeadName | None = "auto",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    needs_head: bool = False,
) -> LanguageModel:
    """Open a model.

    Args:
        place: a run directory (its last checkpoint), a checkpoint, a Hugging Face directory or a
            hub name; an open model is given back.
        head: of a run: "calibrated", "trained", "tied"; "auto" is that which makes it a proper
            language model. A Hugging Face model has its own; one without may be "tied" to its input
            embeddings. None: the backbone alone.
        device: "auto" is a GPU where there is one.
        dtype: of the weights.
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        needs_head: refuse a model that cannot be given an LM head (a Hugging Face model without
            one, a backbone of one's own, which has no class there), which is otherwise opened for
            its weights and states, and without a tokenizer if there is none.

    Raises:
        NoHeadError: a model without an LM head where one is needed.
        HeadlessError: nothing usable is there, or it has no such head.
    """
    if isinstance(place, LanguageModel):
        if needs_head and not place.has_head:
            raise HeadlessError(f"{place.place} was opened without an LM head: load it with one")
        return place
    if is_run(place):
        opened = _open_run(place, head, needs_head)
    elif head is None:
        opened = _open_backbone(str(place), trust_remote_code)
    else:
        try:
            opened = _open_hugging_face(str(place), head, dtype, trust_remote_code)
        except NoHeadError:
            if head != "auto" or needs_head:
                raise
            opened = _open_backbone(str(place), trust_remote_code, tokenizer_optional=True)
    target = choose_device(device)
    model: Any = opened.model
    try:
        model.to(device=target, dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        raise HeadlessError(f"the device {device!r} cannot be used: {error}") from error
    return opened


def _open_run(place: str | Path, head: HeadName | None, needs_head: bool) -> LanguageModel:
    checkpoint = find_checkpoint(place)
    run = run_of(checkpoint)
    module = PretrainingModule.from_checkpoint(checkpoint)
    tokenizer = load_run_tokenizer(run, module.tokenizer_sha256)
    alone = is_custom(module.backbone) and head == "auto" and not needs_head
    if head is None or alone:
        name, model = NO_HEAD, module.backbone.eval()
    else:
        name, model = language_model(module, head)
        complete_config(model, tokenizer)
    return LanguageModel(
        model,
        tokenizer,
        module.task,
        run.path.name,
        name,
        str(place),
        run.path,
        module.unigram_counts,
        module.checkpoint_step,
    )


def _open_backbone(
    place: str, trust_remote_code: bool, *, tokenizer_optional: bool = False
) -> LanguageModel:
    """A Hugging Face model without its LM head, if it has one."""
    transformer = transformer_of(place)
    model = as_backbone(load_pretrained(transformer, trust_remote_code=trust_remote_code)).eval()
    directory, tokenizer = Path(transformer), None
    files = chain.from_iterable(map(directory.glob, TOKENIZER_FILES))
    if not tokenizer_optional or not directory.is_dir() or any(files):
        tokenizer = load_model_tokenizer(transformer, trust_remote_code=trust_remote_code)
    task: Task = "causal" if is_causal(model) else "masked"
    return _hugging_face(place, model, tokenizer, task, NO_HEAD)


def _open_hugging_face(
    place: str, head: HeadName, dtype: torch.dtype, trust_remote_code: bool
) -> LanguageModel:
    transformer = transformer_of(place)
    config = load_config(transformer, trust_remote_code=trust_remote_code)
    if head != "auto" and not (head == "tied" and is_bare(config)):
        raise HeadlessError(
            f"{place} is a Hugging Face model with one head: leave out --head, or name a run"
        )
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(
        config, "is_decoder", False
    )
    if not masked and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise NoHeadError(place, str(config.model_type))
    model = load_pretrained(
        transformer,
        AutoModelForMaskedLM if masked else AutoModelForCausalLM,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        tied=head == "tied",
    )
    tokenizer = None
    if not _is_of_items(Path(transformer) / DESCRIPTION):
        tokenizer = load_model_tokenizer(transformer, trust_remote_code=trust_remote_code)
    task: Task = "masked" if masked else "causal"
    return _hugging_face(place, model, tokenizer, task, "own" if head == "auto" else head)


def _is_of_items(description: Path) -> bool:
    """Whether this describes an export of a run on item ids."""
    return description.is_file() and read_json(description, dict).get("tokenizer_sha256", 1) is None


def _hugging_face(place: str, model: Any, tokenizer: Any, task: Task, head: str) -> LanguageModel:
    path, counts = Path(place), None
    if (path / UNIGRAM_FILE).is_file():
        counts = load_file(path / UNIGRAM_FILE)["unigram_counts"]
    directory = path if path.is_dir() else None
    return LanguageModel(
        model, tokenizer, task, path.resolve().name, head, place, directory, counts
    )
