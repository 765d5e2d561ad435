"""Sampling from a backbone and a head, with the key-value cache of Hugging Face models.

Shapes: B sequences, T tokens, V vocabulary, K places.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from headless.errors import HeadlessError
from headless.models.attention import without_mask

LOOKS = {"cpu": 1}  # after how many tokens it is asked whether all have ended: a GPU is waited for
SELDOM = 16


def choose(
    logits_BV: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token a row [B]: the likeliest at temperature 0, else drawn from what top-k/p leave."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    ids: Any = None  # not looked at
    logits_BV = TemperatureLogitsWarper(float(temperature))(ids, logits_BV.float())
    if top_k is not None:
        logits_BV = TopKLogitsWarper(top_k)(ids, logits_BV)
    if top_p is not None:
        logits_BV = TopPLogitsWarper(top_p)(ids, logits_BV)
    return torch.multinomial(logits_BV.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def likeliest(logits_KV: Tensor, number: int, tokenizer: Any) -> list[list[tuple[str, float]]]:
    """Of each row the `number` likeliest tokens as text, and their probabilities."""
    best = logits_KV.float().softmax(dim=-1).topk(min(number, logits_KV.shape[-1]), dim=-1)
    return [
        [(tokenizer.decode([token]), share) for token, share in zip(*row, strict=True)]
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def check_sampling(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    if max_new_tokens < 1:
        raise HeadlessError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0.0 <= temperature < math.inf:
        raise HeadlessError(f"temperature must not be negative or infinite, got {temperature}")
    if top_k is not None and top_k < 1:
        raise HeadlessError(f"top_k must be at least 1, got {top_k}: leave it out for all")
    if top_p is not None and not 0 < top_p <= 1:
        raise HeadlessError(f"top_p must be in (0, 1], got {top_p}")
    if not 0 <= seed < 2**63:
        raise HeadlessError(f"seed must be from 0 to 2^63 - 1, got {seed}")


def check_prompt(backbone: nn.Module, length: int) -> int:
    """How many tokens a model has positions for after a prompt; refuses one that leaves none."""
    if length == 0:
        raise HeadlessError("the prompt is empty: give at least one token")
    config: Any = backbone.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:  # positions are relative: no limit
        return sys.maxsize
    if length >= positions:
        raise HeadlessError(
            f"the prompt has {length} tokens, the model {positions} positions: shorten it"
        )
    return positions - length


@torch.no_grad()
def sample_tokens(
    backbone: nn.Module,
    logits: Callable[[Tensor], Tensor],
    prompt_BT: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    eos_token_id: int | None = None,
) -> Tensor:
    """Continue prompts of the same length.

    Args:
        backbone: called as Hugging Face's; one without a cache reads everything again.
        logits: of last hidden states [B, D].
        prompt_BT: long, at least one token.
        max_new_tokens: at most so many; fewer where the model has no more positions.
        temperature: 0 takes the likeliest token.
        top_p: draw among the likeliest tokens that hold this share of the probability.
        generator: on the device of the logits.
        eos_token_id: stop when every sequence has it; a sequence that has it is filled up with it.

    Returns:
        Prompt and continuation [B, T + new].
    """
    length = prompt_BT.shape[1]
    max_new_tokens = min(max_new_tokens, check_prompt(backbone, length))
    tokens, step, cache = prompt_BT, prompt_BT, None
    ended_B = torch.zeros(len(prompt_BT), dtype=torch.bool, device=prompt_BT.device)
    every = LOOKS.get(prompt_BT.device.type, SELDOM)
    for new in range(1, max_new_tokens + 1):
        with without_mask(backbone, length + new):
            output = backbone(input_ids=step, past_key_values=cache, use_cache=True)
        cache = getattr(output, "past_key_values", None)
        logits_BV = logits(output.last_hidden_state[:, -1])
        chosen_B = choose(logits_BV, temperature, top_k, top_p, generator)
        if eos_token_id is not None:
            chosen_B = chosen_B.where(~ended_B, eos_token_id)
            ended_B |= chosen_B == eos_token_id
        tokens = torch.cat([tokens, chosen_B[:, None]], dim=1)
        step = tokens if cache is None else chosen_B[:, None]
        if eos_token_id is not None and new % every == 0 and bool(ended_B.all()):
            break
    if eos_token_id is None or every == 1:
        return tokens
    # What was filled up after the last sequence had ended is taken off.
    goes_on_BK = (tokens[:, length:] == eos_token_id).cumsum(dim=1) == 0
    return tokens[:, : length + 1 + int(goes_on_BK.sum(dim=1).max())]
