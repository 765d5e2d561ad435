"""The tokenizer that belongs to a model, and the special tokens that the model's config names."""

from pathlib import Path
from typing import Any

from headless.data.tokenizer import end_of_document, open_tokenizer
from headless.errors import HeadlessError
from headless.files import sha256_of
from headless.runs.directory import RunDirectory


def load_run_tokenizer(run: RunDirectory, sha256: str | None) -> Any:
    """The tokenizer in a run's directory; refuses one of another tokenizer.json than `sha256`."""
    file = run.tokenizer / "tokenizer.json"
    if file.is_file() and sha256 not in (None, sha256_of(file)):
        raise HeadlessError(
            f"{file} is not the tokenizer that the checkpoint was trained with, or damaged: put "
            "back that of the prepared dataset (DATA/tokenizer)"
        )
    return load_model_tokenizer(run.tokenizer)


def load_model_tokenizer(place: str | Path, *, trust_remote_code: bool = False) -> Any:
    """A model's tokenizer, padding at the right, if need be with the end-of-document token."""
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
