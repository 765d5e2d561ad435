"""Text to rows that can be scored, with the boundaries and windows of lm-evaluation-harness.

It mirrors version 0.4.13 (`lm_eval/api/model.py`, `lm_eval/models/huggingface.py` and
`get_rolling_token_windows` in `lm_eval/utils.py`), so that scores agree, which a test compares.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from headless.data.tokenizer import end_of_document
from headless.downstream.evaluation.likelihood import Row


def rolling_rows(tokens: Sequence[int], prefix: int, max_length: int, stride: int) -> Iterator[Row]:
    """Windows of [prefix, token 0, token 1, ...] that predict each token once.

    The first predicts up to `max_length` tokens, each further one the next `stride`, from up to
    `max_length` tokens.
    """
    text, end = [prefix, *tokens], 0
    while end < len(tokens):
        scored = min(stride if end else max_length, len(tokens) - end)
        end += scored
        read = text[max(0, end - max_length) : end]
        yield Row(read, range(len(read) - scored, len(read)), tokens[end - scored : end])


def prefix_token(tokenizer: Any) -> int:
    """What precedes a text without context: BOS, else the token between documents."""
    first = tokenizer.bos_token_id
    return int(end_of_document(tokenizer) if first is None else first)  # type: ignore[arg-type]


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids without the special tokens that some tokenizers add."""
    return tokenizer(text, verbose=False, add_special_tokens=False)["input_ids"]


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of its continuation.

    Both are encoded together and cut after as many tokens as the context has alone; blanks at the
    context's end go to the continuation. A context that is empty, or blank (which the harness
    refuses), is the prefix token.
    """
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    if not bare:
        return [prefix_token(tokenizer)], plain_ids(tokenizer, continuation)
    context_ids, ids = (
        tokenizer(text, verbose=False)["input_ids"] for text in (bare, bare + continuation)
    )
    return context_ids, ids[len(context_ids) :]


def continuation_row(
    context_ids: Sequence[int], continuation_ids: Sequence[int], max_length: int
) -> tuple[Row, bool] | None:
    """The row of a continuation, and whether its context was cut from the left to fit.

    None where the continuation has no token or more than the model can read.
    """
    length = len(continuation_ids)
    if not context_ids or not 0 < length <= max_length:
        return None
    ids = [*context_ids, *continuation_ids]
    read = ids[-(max_length + 1) :][:-1]
    row = Row(read, range(len(read) - length, len(read)), list(continuation_ids))
    return row, len(ids) > max_length + 1


def masked_rows(tokenizer: Any, text: str, max_length: int, *, framed: bool) -> list[Row] | None:
    """A row for each token of a sentence, with that token masked (Salazar et al. 2020).

    `framed`: with the special tokens that the tokenizer adds by itself; otherwise, and where it
    adds none, between two ends of documents, as in our training streams. None where the text has no
    token or more than the model can read.
    """
    ids = plain_ids(tokenizer, text)
    row = tokenizer(text, verbose=False)["input_ids"] if framed else ids
    if len(row) == len(ids):
        end = end_of_document(tokenizer)
        row, begin = [end, *ids, end], 1
    else:
        begin = next(i for i in range(len(row)) if row[i : i + len(ids)] == ids)
    if not ids or len(row) > max_length:
        return None
    mask = tokenizer.mask_token_id
    return [
        Row([*row[:place], mask, *row[place + 1 :]], [place], [row[place]])
        for place in range(begin, begin + len(ids))
    ]
