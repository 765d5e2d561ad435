"""Decoding by maximum-inner-product search in place of the vocabulary projection.

A linear head's logit of token v is w_v·h + b_v = [w_v ; b_v]·[h ; 1]: the k likeliest tokens are
the k rows of the table [W ; b] with the largest inner product.

Shapes: B queries, D hidden size, V vocabulary, k tokens found, T tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headless.downstream.generate import Sampling, encode_prompt
from headless.downstream.loading import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.library import Device, Kind
from headless.errors import HeadlessError
from headless.models.sampling import check_prompt, choose

PROBE_TOKENS = 8  # of the sequence on which a head is found to be linear
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # relative to the largest logit
HALF_TOLERANCE = 3e-2  # the same in bfloat16 and float16


class FaissHead:
    """The output table of a language model as an index.

    Args:
        index: of [W ; b], by inner product.
        k: how many tokens a search returns.
    """

    def __init__(self, index: VectorIndex, k: int) -> None:
        self.index = index
        self.k = k

    @classmethod
    def from_linear(
        cls,
        linear: nn.Module,
        kind: Kind = "exact",
        k: int = 64,
        *,
        nprobe: int | None = None,
        ef: int | None = None,
        device: Device = "auto",
    ) -> "FaissHead":
        """Index the matrix and the bias of a head.

        Args:
            linear: `nn.Linear(D, V)`; its values are copied as float32.
            kind: see `VectorIndex`.
            k: how many tokens a search returns; at most V.
            nprobe: see `VectorIndex.tune`.
            ef: see `VectorIndex.tune`.
            device: where the index is: see `VectorIndex.build`.

        Raises:
            HeadlessError: not a linear head, k below 1, or no faiss.
        """
        if not isinstance(linear, nn.Linear):
            raise HeadlessError(
                f"the head is a {type(linear).__name__}, not a matrix: use the model's own decoder"
            )
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        table = linear.weight.detach().float()
        if linear.bias is not None:
            table = torch.cat([table, linear.bias.detach().float()[:, None]], dim=1)
        rows = table.cpu().numpy()
        index = VectorIndex.build(rows, kind, "inner", nprobe=nprobe, ef=ef, device=device)
        return cls(index, min(k, len(rows)))

    def search(self, hidden_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest tokens.

        Returns:
            scores_Bk: logits, float32, largest first; -inf where an approximate search found fewer.
            ids_Bk: long. Both on the device of `hidden_BD`.
        """
        queries = hidden_BD.detach().float().cpu().numpy()
        if self.index.rows_ND.shape[1] > queries.shape[1]:
            queries = np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)
        scores_Bk, ids_Bk = self.index.search(queries, self.k)
        device = hidden_BD.device
        return torch.from_numpy(scores_Bk).to(device), torch.from_numpy(ids_Bk).to(device)

    @torch.no_grad()
    def decode(
        self,
        lm: LanguageModel,
        prompt_ids_1T: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        eos_token_id: int | None = None,
        on_token: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Continue one prompt with the key-value cache, drawing among the k tokens found.

        Args:
            lm: a causal model whose head this is.
            prompt_ids_1T: long, at least one token.
            max_new_tokens: at most so many; fewer where the model has no more positions.
            temperature: 0 takes the likeliest token.
            top_k: draw among these many of the k.
            top_p: draw among the likeliest that hold this share of the probability of the k.
            generator: of the random numbers; on the model's device.
            eos_token_id: stop after it.
            on_token: gets each new token [1].

        Returns:
            Prompt and continuation [1, T + new].

        Raises:
            HeadlessError: a masked model, a head that is not linear, a prompt that is empty or
                fills all positions, or a search that found nothing.
        """
        check_linear(lm)
        backbone: Any = lm.model.base_model
        max_new_tokens = min(max_new_tokens, check_prompt(backbone, prompt_ids_1T.shape[1]))
        tokens_1T, step, cache = prompt_ids_1T, prompt_ids_1T, None
        for _ in range(max_new_tokens):
            output = backbone(input_ids=step, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            scores_1k, ids_1k = self.search(output.last_hidden_state[:, -1])
            if int(ids_1k[0, 0]) < 0:
                raise HeadlessError(
                    f"the {self.index.kind} index found no token: raise nprobe, or take exact"
                )
            chosen_1 = choose(scores_1k, temperature, top_k, top_p, generator)
            step = ids_1k.gather(1, chosen_1[:, None])
            tokens_1T = torch.cat([tokens_1T, step], dim=1)
            if on_token is not None:
                on_token(step[0])
            if eos_token_id is not None and int(step) == eos_token_id:
                break
        return tokens_1T


@torch.no_grad()
def check_linear(lm: LanguageModel) -> None:
    """Refuse a model whose logits are not its output matrix (and bias) times its hidden states.

    Raises:
        HeadlessError: a masked model, or a head that does more.
    """
    if lm.task != "causal":
        raise HeadlessError(f"{lm.name} is a masked model, which continues no prompt")
    model: Any = lm.model
    ids_1T = (torch.arange(PROBE_TOKENS, device=model.device) * 7919 % model.config.vocab_size)[
        None
    ]
    linear = model.get_output_embeddings()
    if isinstance(linear, nn.Linear):
        wanted = model(input_ids=ids_1T).logits.float()
        hidden = model.base_model(input_ids=ids_1T).last_hidden_state
        bias = None if linear.bias is None else linear.bias.to(hidden.dtype)
        found = F.linear(hidden, linear.weight.to(hidden.dtype), bias).float()
        limit = TOLERANCE.get(hidden.dtype, HALF_TOLERANCE) * wanted.abs().max()
        if bool((found - wanted).abs().max() <= limit):
            return
    raise HeadlessError(
        f"the head of {lm.name} is more than a matrix and a bias, which is all that an index can "
        "search: use the model's own decoder"
    )


@torch.no_grad()
def continue_with_index(
    lm: LanguageModel, head: FaissHead, prompt: str, sampling: Sampling, streamer: Any = None
) -> str:
    """`headless.downstream.generate.continue_prompt` with an index as the head.

    Args:
        lm: the model.
        head: of its output table.
        prompt: what stands before.
        sampling: how tokens are chosen among those that are found.
        streamer: gets the tokens as they come, as in Transformers.

    Raises:
        HeadlessError: see `FaissHead.decode` and `encode_prompt`.
    """
    ids_1T, new = encode_prompt(lm, prompt, sampling.max_new_tokens)
    generator = torch.Generator(device=ids_1T.device).manual_seed(sampling.seed)
    if streamer is not None:
        streamer.put(ids_1T.cpu())
    tokens_1T = head.decode(
        lm,
        ids_1T,
        new,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        generator=generator,
        eos_token_id=lm.tokenizer.eos_token_id,
        on_token=None if streamer is None else lambda token: streamer.put(token.cpu()),
    )
    if streamer is not None:
        streamer.end()
    return lm.tokenizer.decode(tokens_1T[0, ids_1T.shape[1] :], skip_special_tokens=True)
