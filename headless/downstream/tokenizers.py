"""The tokenizer that belongs to a model, its special tokens in the model's config, its lengths."""

from pathlib import Path
from typing import Any

from headless.data.tokenizer import end_of_document, open_tokenizer
from headless.errors import HeadlessError
from headless.files import sha256_of
from headless.models.backbone import is_causal
from headless.runs.directory import RunDirectory

NO_LIMIT = 10**9  # tokenizers that know no limit name a number beyond this one


def longest_input(
    model: Any,
    tokenizer: Any,
    wanted: int | None = None,
    *,
    usual: int = 2048,
    least: int = 2,
    name: str = "max_length",
) -> int:
    """How many tokens a model reads at a time: `wanted`, or all it can (`usual` if not known)."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [positions] if positions else []
    # An encoder of the RoBERTa family has two positions that no token takes.
    if (not positions or not is_causal(model)) and tokenizer is not None:
        limits += [int(n) for n in (tokenizer.model_max_length,) if n < NO_LIMIT]
    if wanted is None:
        return min(limits, default=usual)
    if wanted < least:
        raise HeadlessError(f"{name} must be at least {least}, got {wanted}")
    if limits and wanted > min(limits):
        raise HeadlessError(
            f"{name} {wanted} is more than the {min(limits)} positions of the model: lower it"
        )
    return wanted


def load_run_tokenizer(run: RunDirectory, sha256: str | None) -> Any:
    """The tokenizer in a run's directory; refuses one of another tokenizer.json than `sha256`.

    None of a run on item ids, which has none.
    """
    if sha256 is None and not run.tokenizer.exists():
        return None
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
    """Tell a model its special tokens: what generation stops at, and what it pads with.

    One of item ids (None) knows the end of a sequence since it was built.
    """
    if tokenizer is None:
        for config in (model.config, getattr(model, "generation_config", None)):
            if config is not None:
                config.bos_token_id = config.pad_token_id = model.config.eos_token_id
        return
    end = end_of_document(tokenizer)
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.eos_token_id = end
            config.bos_token_id = tokenizer.bos_token_id
            config.pad_token_id = tokenizer.pad_token_id
