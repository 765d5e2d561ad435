"""The tokenizer that belongs to a model, and the special tokens that the model's config names."""

from pathlib import Path
from typing import Any

from headless.data.tokenizer import end_of_document, open_tokenizer
from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory
from headless.sums import sha256_of


def tokenizer_of_run(run: RunDirectory, trained_with: str | None) -> Any:
    """The tokenizer in a run's directory, if it is the one that its checkpoint was trained with.

    Args:
        run: the directory.
        trained_with: sha256 of its tokenizer.json; None: not known.
    """
    file = run.tokenizer / "tokenizer.json"
    if file.is_file() and trained_with not in (None, sha256_of(file)):
        raise HeadlessError(
            f"{file} is not the tokenizer that the checkpoint was trained with, or damaged: put "
            "back that of the prepared dataset (DATA/tokenizer)"
        )
    return load_tokenizer_of(run.tokenizer)


def load_tokenizer_of(place: str | Path, *, trust_remote_code: bool = False) -> Any:
    """A model's tokenizer, padding at the right; where it has no padding token, with the one that
    ends a document.
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
