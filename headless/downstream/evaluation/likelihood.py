"""How likely a model finds tokens: summed log-probabilities of chosen positions of many rows.

Texts become rows with the boundaries and windows of lm-evaluation-harness 0.4.13
(`lm_eval/api/model.py`, `lm_eval/models/huggingface.py`, `get_rolling_token_windows` in
`lm_eval/utils.py`), so that scores agree, which a test compares.

Shapes: B rows, T positions, D hidden size, V vocabulary; M scored positions of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from headless.data.tokenizer import end_of_document
from headless.errors import HeadlessError
from headless.models.logits import ChosenLogits, chosen_logits, rows_at_a_time

Progress = Callable[[int, int], None]  # rows done, rows in all


class Row(NamedTuple):
    """What the model reads, and the positions whose logits are scored on a target each."""

    input_ids: Sequence[int]
    positions: Sequence[int]
    targets: Sequence[int]


class Score(NamedTuple):
    """Nats of a row's targets, summed, whether each is the likeliest token, and how many."""

    log_likelihood: float
    greedy: bool
    tokens: int = 0


def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> list[Score]:
    """Score rows, in batches of similar length.

    Only the scored positions meet the vocabulary, in float32 and for `rows_at_a_time`.
    Log-probabilities are summed in float64. Rows without positions score 0 and are greedy.
    """
    if batch_size < 1:
        raise HeadlessError(f"batch_size must be at least 1, got {batch_size}")
    if not rows:
        return []
    limit = rows_at_a_time(model.config.vocab_size)
    pieces = [  # a long row is read once for each `limit` of its positions
        (i, Row(row.input_ids, row.positions[a : a + limit], row.targets[a : a + limit]))
        for i, row in sorted(enumerate(rows), key=lambda pair: -len(pair[1].input_ids))
        for a in range(0, max(1, len(row.positions)), limit)
    ]
    last = {i: place for place, (i, _) in enumerate(pieces)}
    totals, missed = [0.0] * len(rows), [0] * len(rows)
    done = scored = 0
    with torch.autocast(model.device.type, enabled=False), chosen_logits(model) as head:
        while done < len(pieces):
            end = done + 1
            positions = len(pieces[done][1].positions)
            while end < min(done + batch_size, len(pieces)):
                positions += len(pieces[end][1].positions)
                if positions > limit:
                    break
                end += 1
            numbers, batch = zip(*pieces[done:end], strict=True)
            for i, nats, wrong in zip(numbers, *_score_batch(model, head, batch), strict=True):
                totals[i] += nats
                missed[i] += wrong
            scored += sum(last[i] == place for place, i in enumerate(numbers, start=done))
            done = end
            progress(scored, len(rows))
    return [
        Score(total, wrong == 0, len(row.targets))
        for row, total, wrong in zip(rows, totals, missed, strict=True)
    ]


@torch.inference_mode()
def _score_batch(
    model: PreTrainedModel, head: ChosenLogits, batch: Sequence[Row]
) -> tuple[list[float], list[int]]:
    """Nats and the number of targets that are not the likeliest, a row."""
    sizes = [len(row.positions) for row in batch]
    if not any(sizes):
        return [0.0] * len(batch), [0] * len(batch)
    device = model.device
    ids = [torch.tensor(list(row.input_ids)) for row in batch]
    ids_BT = pad_sequence(ids, batch_first=True)
    mask_BT = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    row_M = torch.arange(len(batch)).repeat_interleave(torch.tensor(sizes))
    head.row_M = row_M.to(device)
    head.position_M = torch.tensor([p for row in batch for p in row.positions], device=device)
    targets_M = torch.tensor([t for row in batch for t in row.targets], device=device)
    output: Any = model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
    logits_MV = output.logits[0]
    target_logit_M = logits_MV.gather(1, targets_M[:, None])[:, 0]
    nats_M = (target_logit_M - logits_MV.logsumexp(dim=-1)).double().cpu()
    wrong_M = (logits_MV.argmax(dim=-1) != targets_M).long().cpu()
    if not nats_M.isfinite().all():
        raise HeadlessError(
            "the model's scores are not finite: try --dtype float32, or look at its weights"
        )
    nats_B = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, row_M, nats_M)
    wrong_B = torch.zeros(len(batch), dtype=torch.long).index_add_(0, row_M, wrong_M)
    return nats_B.tolist(), wrong_B.tolist()


def rolling_rows(text: Any, max_length: int, stride: int) -> Iterator[Row]:
    """Windows of a list or an array of tokens that predict each token but the first once.

    The first predicts up to `max_length` tokens, each further one the next `stride`, from up to
    `max_length` tokens.
    """
    end, last = 0, len(text) - 1
    while end < last:
        scored = min(stride if end else max_length, last - end)
        end += scored
        read = text[max(0, end - max_length) : end]
        yield Row(read, range(len(read) - scored, len(read)), text[end - scored + 1 : end + 1])


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
