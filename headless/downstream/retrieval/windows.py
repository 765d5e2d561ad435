"""Hidden states and log-probabilities of a token stream, window by window.

A window's first half is context that the window before has scored, so that every token but the
stream's first is predicted once, from at least half a window of what stands before it (where the
stream has it).

Shapes: T tokens, n positions that a window adds, D hidden size, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headless.data.stream import TokenDataset, TokenStream, open_dataset
from headless.data.tokenizer import load_tokenizer, same_ids
from headless.downstream.loading import LanguageModel
from headless.errors import HeadlessError

LONGEST = 1024  # tokens of a window, where the model has more positions
BATCH_TOKENS = 2048  # of windows at a time


class Window(NamedTuple):
    """What one window adds. The model's log-probabilities where they were asked for."""

    hidden_nD: Tensor  # float32, on the CPU
    targets_n: Tensor  # long: the token that follows each position
    log_probability_n: Tensor | None  # float32: of those tokens


def window_length(lm: LanguageModel, context_length: int | None = None) -> int:
    """Tokens of a window.

    Raises:
        HeadlessError: fewer than 2, or more than the model has positions for.
    """
    positions = getattr(lm.model.config, "max_position_embeddings", None)
    if context_length is None:
        return min(positions or LONGEST, LONGEST)
    if context_length < 2 or context_length > (positions or context_length):
        most = f" and at most the model's {positions}" if positions else ""
        raise HeadlessError(f"context_length must be at least 2{most}, got {context_length}")
    return context_length


def open_for(lm: LanguageModel, path: Any, split: str) -> tuple[TokenDataset, TokenStream]:
    """A prepared dataset that a causal model can read.

    Raises:
        HeadlessError: no dataset, one of another tokenizer, or a masked model.
    """
    if lm.task != "causal":
        raise HeadlessError(
            f"{lm.name} is a masked model: contexts with a next token need a causal one"
        )
    dataset = open_dataset(path)
    if not same_ids(load_tokenizer(str(dataset.tokenizer_path)), lm.tokenizer):
        raise HeadlessError(
            f"{path} was prepared with another tokenizer than that of {lm.name}: prepare it with "
            f"--tokenizer {lm.directory / 'tokenizer' if lm.directory else lm.place}"
        )
    stream = dataset.split(split)
    if len(stream) < 2:
        raise HeadlessError(f"the {split} split of {path} has no token to predict")
    return dataset, stream


@torch.no_grad()
def read_windows(
    lm: LanguageModel, stream: TokenStream, num_tokens: int, length: int, *, scored: bool
) -> Iterator[Window]:
    """The first `num_tokens` predictions of a stream, in its order.

    Args:
        lm: a causal model.
        stream: at least num_tokens + 1 tokens.
        num_tokens: how many tokens are predicted.
        length: T, tokens of a window.
        scored: whether log-probabilities are wanted, which takes the whole vocabulary.
    """
    step = max(1, length // 2)
    # The first window adds all of its positions, each later one its last `step`.
    ends = [min(length, num_tokens)]
    while ends[-1] < num_tokens:
        ends.append(min(ends[-1] + step, num_tokens))
    size = max(1, BATCH_TOKENS // length)
    for first in range(0, len(ends), size):
        batch = ends[first : first + size]
        before = [0 if i == 0 else ends[i - 1] for i in range(first, first + len(batch))]
        begins = [max(0, end - length) for end in batch]
        pieces = [stream[b : e + 1] for b, e in zip(begins, batch, strict=True)]
        longest = max(len(piece) for piece in pieces) - 1
        ids_BT = np.full((len(batch), longest), lm.tokenizer.pad_token_id)
        for row, piece in enumerate(pieces):  # filled up behind, where a causal model does not look
            ids_BT[row, : len(piece) - 1] = piece[:-1]
        hidden_BTD, logits_BTV = hidden_and_logits(lm, torch.from_numpy(ids_BT), scored)
        for row, piece in enumerate(pieces):
            new = slice(before[row] - begins[row], batch[row] - begins[row])
            targets_n = torch.from_numpy(piece[1:][new])
            log_probability_n = None
            if logits_BTV is not None:
                logits_nV = logits_BTV[row, new].float()
                chosen_n = logits_nV.gather(1, targets_n.to(logits_nV.device)[:, None])[:, 0]
                log_probability_n = (chosen_n - logits_nV.logsumexp(dim=-1)).cpu()
            yield Window(hidden_BTD[row, new].float().cpu(), targets_n, log_probability_n)


@torch.no_grad()
def hidden_and_logits(
    lm: LanguageModel, ids_BT: Tensor, scored: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Last hidden states [B, T, D] and, where wanted, logits [B, T, V] of one forward pass."""
    model: Any = lm.model
    ids_BT = ids_BT.to(model.device)
    if not scored:
        return model.base_model(input_ids=ids_BT).last_hidden_state, None
    found: list[Tensor] = []
    hook = model.base_model.register_forward_hook(
        lambda module, inputs, output: found.append(output.last_hidden_state)
    )
    try:
        logits_BTV = model(input_ids=ids_BT).logits
    finally:
        hook.remove()
    return found[-1], logits_BTV
