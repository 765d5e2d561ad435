"""Sentences and pairs as token ids."""

import copy
from typing import Any

from tokenizers.processors import TemplateProcessing

from headless.data.tokenizer import end_of_document
from headless.errors import HeadlessError

SHORTEST = 4  # tokens: an end of document, one of each text and one between them
NO_LIMIT = 10**9


def with_template(tokenizer: Any) -> Any:
    """A fast tokenizer that puts its special tokens around texts and pairs as the model saw them.

    One that has a template of its own (BERT's `[CLS] a [SEP] b [SEP]`) is given back. For others
    the end-of-document token, which stood before every document of the training text, stands
    before the first text and before the second one.
    """
    if tokenizer("a").input_ids != tokenizer("a", add_special_tokens=False).input_ids:
        return tokenizer
    end = end_of_document(tokenizer)
    name = tokenizer.convert_ids_to_tokens(end)
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=[name, "$A"], pair=[name, "$A", name, "$B"], special_tokens=[(name, end)]
    )
    return made


def encode(
    tokenizer: Any,
    texts: list[str],
    pairs: list[str] | None,
    max_length: int,
    *,
    segments: bool = False,
) -> tuple[list[dict[str, list[int]]], int]:
    """One `{"input_ids": [...], ...}` an example, and how many were cut.

    Args:
        tokenizer: see `with_template`.
        texts: the first, or only, texts.
        pairs: the second ones.
        max_length: the most tokens; longer pairs lose tokens at the end of the longer text.
        segments: whether the model tells the texts of a pair apart by `token_type_ids`.
    """
    whole = tokenizer(texts, pairs, verbose=False).input_ids
    columns = tokenizer(
        texts,
        pairs,
        truncation="longest_first",
        max_length=max_length,
        return_token_type_ids=segments,
    )
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, sum(len(ids) > max_length for ids in whole)


def text_length(backbone: Any, tokenizer: Any, max_length: int | None) -> int:
    """The most tokens of an example: what is wanted, or all that the model has positions for."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or NO_LIMIT
    limit = min(int(positions), int(min(tokenizer.model_max_length, NO_LIMIT)))
    if max_length is None:
        return 512 if limit == NO_LIMIT else limit
    if max_length > limit:
        raise HeadlessError(f"max_length {max_length} is more than the model's {limit} positions")
    if max_length < SHORTEST:
        raise HeadlessError(f"max_length must be at least {SHORTEST}, got {max_length}")
    return max_length
