"""Text from a model: continuations of prompts, or what belongs at a masked model's masks."""

from dataclasses import dataclass
from typing import Any

import torch

from headless.downstream.loading import LanguageModel
from headless.errors import HeadlessError
from headless.models.sampling import check_prompt, check_sampling

GUESSES = 5  # for each mask


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        max_new_tokens: at most so many; fewer where the model has no more positions.
        temperature: 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens only.
        top_p: draw among the likeliest tokens that hold this share of the probability.
        seed: of the random numbers; every prompt begins with the same ones.

    Raises:
        HeadlessError: a value out of its range.
    """

    max_new_tokens: int = 100
    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sampling(self.max_new_tokens, self.temperature, self.top_k, self.top_p, self.seed)

    def as_options(self) -> dict[str, Any]:
        """For Transformers' `generate`."""
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_k": self.top_k or 0,
            "top_p": self.top_p or 1.0,
        }


def encode_prompt(lm: LanguageModel, prompt: str, max_new_tokens: int) -> tuple[torch.Tensor, int]:
    """Token ids [1, T] of a prompt, and how many tokens can follow.

    An empty prompt begins a document. What a prompt holds is text, as in the training text: the
    name of a special token too.

    Raises:
        HeadlessError: the prompt fills all positions of the model.
    """
    ids = lm.tokenizer.encode(prompt, add_special_tokens=False) or [lm.tokenizer.eos_token_id]
    room = check_prompt(lm.model, len(ids))
    return torch.tensor([ids], device=lm.model.device), min(room, max_new_tokens)


@torch.no_grad()
def continue_prompt(
    lm: LanguageModel, prompt: str, sampling: Sampling, streamer: Any = None
) -> str:
    """The continuation of a prompt by a causal model.

    Args:
        lm: the model.
        prompt: what stands before.
        sampling: how tokens are chosen; the same seed gives the same text on the same device.
        streamer: gets the tokens as they come, as in Transformers.

    Raises:
        HeadlessError: see `encode_prompt`.
    """
    ids_1T, new = encode_prompt(lm, prompt, sampling.max_new_tokens)
    model: Any = lm.model
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(sampling.seed)
        tokens_1T = model.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=new,
            streamer=streamer,
            **sampling.as_options(),
        )
    return lm.tokenizer.decode(tokens_1T[0, ids_1T.shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def fill_masks(lm: LanguageModel, prompt: str) -> list[list[tuple[str, float]]]:
    """For each mask of a prompt, a masked model's likeliest tokens and their probabilities.

    Raises:
        HeadlessError: the prompt has no mask, or is too long.
    """
    tokenizer = lm.tokenizer
    ids = tokenizer.encode(prompt, split_special_tokens=False)  # masks are tokens
    if tokenizer.mask_token_id not in ids:
        raise HeadlessError(
            f"{lm.name} is a masked model: write {tokenizer.mask_token} in the prompt where it is "
            "to fill in a token"
        )
    check_prompt(lm.model, len(ids))
    ids_1T = torch.tensor([ids], device=lm.model.device)
    logits_KV = lm.model(input_ids=ids_1T).logits[ids_1T == tokenizer.mask_token_id]
    best = logits_KV.float().softmax(dim=-1).topk(min(GUESSES, logits_KV.shape[-1]), dim=-1)
    return [
        [(tokenizer.decode([token]), share) for token, share in zip(*pair, strict=True)]
        for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
