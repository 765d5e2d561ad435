"""One way to open a model: a run, a checkpoint, a Hugging Face directory or a hub name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from headless.data.tokenizer import end_of_document, open_tokenizer
from headless.errors import HeadlessError
from headless.models.backbone import is_causal
from headless.models.pretrained import (
    NoHeadError,
    as_backbone,
    is_bare,
    load_config,
    load_pretrained,
    transformer_of,
)
from headless.runs.directory import RunDirectory
from headless.sums import sha256_of
from headless.training.devices import choose_device
from headless.training.language_model import HeadName, language_model
from headless.training.loading import find_checkpoint, is_run, run_of
from headless.training.module import PretrainingModule

UNIGRAM_FILE = "unigram_counts.safetensors"  # beside an export's weights
NO_HEAD = "no"  # in the place of a head's name
TOKENIZER_FILES = (  # one of them is in any directory with a tokenizer
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


@dataclass(frozen=True)
class LanguageModel:
    """A model with an LM head; of `load_model` also one without.

    Args:
        model: a Hugging Face `...ForCausalLM` or `...ForMaskedLM` in evaluation mode: its logits
            are those of the head that `head` names; `get_output_embeddings()` is that head's
            matrix and bias. Without a head the backbone alone.
        tokenizer: with a padding token; its eos token stands between the documents of the training
            text. None where a model without a head has none.
        task: "causal" or "masked".
        name: a few words for tables.
        head: "calibrated", "tied", "trained", "own": a Hugging Face model's, or `NO_HEAD`.
        place: what the user named.
        directory: the run's or the model's directory; None for a name on the hub.
        unigram_count_V: how often each token occurs in the training text, where it is known.
    """

    model: PreTrainedModel
    tokenizer: Any
    task: Literal["causal", "masked"]
    name: str
    head: str
    place: str
    directory: Path | None
    unigram_count_V: Tensor | None = None

    @property
    def has_head(self) -> bool:
        """Whether it makes logits."""
        return self.head != NO_HEAD


@dataclass(frozen=True)
class Encoder:
    """A model without an LM head: hidden states of text; see `LanguageModel` for the fields."""

    backbone: PreTrainedModel
    tokenizer: Any
    task: Literal["causal", "masked"]
    name: str
    place: str
    directory: Path | None


def load_language_model(
    place: str | Path,
    *,
    head: HeadName = "auto",
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Open a model with its LM head.

    Args:
        place: a run directory (its last checkpoint), a checkpoint, a Hugging Face directory or a
            hub name.
        head: of a run: see `choose_head`; "auto" is the head under which it is a proper language
            model. A Hugging Face model has its own only; a decoder without one may be given its
            input embeddings: "tied".
        device: where it goes; "auto": a GPU where there is one.
        dtype: of the weights; None: float32.
        trust_remote_code: run the Python file that comes with a Hugging Face directory.

    Raises:
        NoHeadError: a Hugging Face model without an LM head.
        HeadlessError: nothing usable is there, or it has no such head.
    """
    dtype = dtype or torch.float32
    if not is_run(place):
        loaded = _open_hugging_face(str(place), head, dtype, trust_remote_code)
    else:
        checkpoint = find_checkpoint(place)
        run = run_of(checkpoint)
        module = PretrainingModule.from_checkpoint(checkpoint)
        name, model = language_model(module, head)
        tokenizer = tokenizer_of_run(run, module)
        complete_config(model, tokenizer)
        loaded = LanguageModel(
            _cast(model, dtype),
            tokenizer,
            module.task,
            run.path.name,
            name,
            str(place),
            run.path,
            module.unigram_counts,
        )
    _to(loaded.model, device)
    return loaded


def load_model(
    place: str | Path,
    *,
    head: HeadName = "auto",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Open a model for its weights and states: with its LM head, or without where it has none.

    One without a head may come without a tokenizer, as `save_pretrained` of a backbone leaves it.

    Raises:
        HeadlessError: nothing usable is there, or it has no such head.
    """
    try:
        return load_language_model(
            place, head=head, device=device, trust_remote_code=trust_remote_code
        )
    except NoHeadError:
        if head != "auto":
            raise
    inside = Path(transformer_of(str(place)))
    alone = inside.is_dir() and not any((inside / name).is_file() for name in TOKENIZER_FILES)
    bare = load_encoder(
        place, device=device, trust_remote_code=trust_remote_code, tokenizer=not alone
    )
    return LanguageModel(
        bare.backbone,
        bare.tokenizer,
        bare.task,
        bare.name,
        NO_HEAD,
        bare.place,
        bare.directory,
        _unigram_counts(Path(place) / UNIGRAM_FILE),
    )


def load_encoder(
    place: str | Path,
    *,
    device: str = "cpu",
    trust_remote_code: bool = False,
    tokenizer: bool = True,
) -> Encoder:
    """Open a model without its LM head: for fine-tuning and for its hidden states.

    Args:
        place: as of `load_language_model`.
        device: where it goes.
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        tokenizer: False: it has none, and goes without.

    Raises:
        HeadlessError: nothing usable is there.
    """
    if is_run(place):
        checkpoint = find_checkpoint(place)
        run = run_of(checkpoint)
        module = PretrainingModule.from_checkpoint(checkpoint)
        backbone: Any = module.backbone
        name, found = run.path.name, tokenizer_of_run(run, module)
        directory: Path | None = run.path
    else:
        inside = transformer_of(str(place))
        backbone = load_pretrained(inside, trust_remote_code=trust_remote_code)
        backbone = as_backbone(backbone)
        found = None
        if tokenizer:
            found = load_tokenizer_of(inside, trust_remote_code=trust_remote_code)
        path = Path(place)
        name, directory = path.resolve().name, path if path.is_dir() else None
    _to(backbone, device)
    task: Literal["causal", "masked"] = "causal" if is_causal(backbone) else "masked"
    return Encoder(backbone.eval(), found, task, name, str(place), directory)


def _open_hugging_face(
    place: str, head: HeadName, dtype: torch.dtype, trust_remote_code: bool
) -> LanguageModel:
    inside = transformer_of(place)
    config = load_config(inside, trust_remote_code=trust_remote_code)
    if head != "auto" and not (head == "tied" and is_bare(config)):
        raise HeadlessError(
            f"{place} is a Hugging Face model with one head: leave out --head, or name a run"
        )
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder
    if not masked and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise NoHeadError(place, str(config.model_type))
    model = load_pretrained(
        inside,
        AutoModelForMaskedLM if masked else AutoModelForCausalLM,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        tied=head == "tied",
    )
    tokenizer = load_tokenizer_of(inside, trust_remote_code=trust_remote_code)
    path = Path(place)
    return LanguageModel(
        model,
        tokenizer,
        "masked" if masked else "causal",
        path.resolve().name,
        "own" if head == "auto" else head,
        place,
        path if path.is_dir() else None,
        _unigram_counts(path / UNIGRAM_FILE),
    )


def _unigram_counts(path: Path) -> Tensor | None:
    if not path.is_file():
        return None
    from safetensors.torch import load_file

    return load_file(path)["unigram_counts"]


def tokenizer_of_run(run: RunDirectory, module: PretrainingModule) -> Any:
    """The tokenizer in a run's directory, if it is the one that its checkpoint was trained with.

    Raises:
        HeadlessError: it is another one, or there is none.
    """
    file, trained_with = run.tokenizer / "tokenizer.json", module.tokenizer_sha256
    if file.is_file() and trained_with not in (None, sha256_of(file)):
        raise HeadlessError(
            f"{file} is not the tokenizer that the checkpoint was trained with, or damaged: put "
            "back that of the prepared dataset (DATA/tokenizer)"
        )
    return load_tokenizer_of(run.tokenizer)


def load_tokenizer_of(place: str | Path, *, trust_remote_code: bool = False) -> Any:
    """A model's tokenizer, with a padding token.

    Raises:
        HeadlessError: there is none, or it has no token that ends a document.
    """
    tokenizer = open_tokenizer(str(place), trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end_of_document(tokenizer))
    tokenizer.padding_side = "right"
    return tokenizer


def complete_config(model: Any, tokenizer: Any) -> None:
    """Tell a model its special tokens: what generation stops at, and what it pads with."""
    end = end_of_document(tokenizer)
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.eos_token_id = end
            config.bos_token_id = tokenizer.bos_token_id
            config.pad_token_id = tokenizer.pad_token_id


def _cast(model: Any, dtype: torch.dtype) -> PreTrainedModel:
    return model.to(dtype)


def _to(model: Any, device: str) -> None:
    chosen = choose_device(device)
    try:
        model.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise HeadlessError(f"the device {device!r} cannot be used: {error}") from error
