"""A model that is open, and what it can do.

Shapes: B texts, T tokens, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headless.downstream.export import export
from headless.downstream.retrieval.indexes import Kind, Metric, VectorIndex, unit
from headless.errors import HeadlessError
from headless.models.logits import logits_at
from headless.models.sampling import check_prompt, check_sampling, likeliest
from headless.training.hugging_face import FOLDED

NO_HEAD = "no"  # in the place of a head's name
GUESSES = 5  # for each mask

Task = Literal["causal", "masked"]
Table = Literal["input", "output"]


@dataclass(frozen=True)
class LanguageModel:
    """A model that `load` opened."""

    #: a Hugging Face `...ForCausalLM` or `...ForMaskedLM` in evaluation mode, with the head that
    #: `head` names as `get_output_embeddings()`; without a head the backbone alone
    model: PreTrainedModel
    #: with a padding token; its eos token stands between the documents of the training text. None
    #: where a model without a head has none, and of item ids, which are no text.
    tokenizer: Any
    task: Task
    name: str  #: for tables
    head: str  #: "calibrated", "tied", "trained", "own" (of a Hugging Face model), or `NO_HEAD`
    place: str  #: what the user named
    directory: Path | None  #: the run's or the model's; None for a name on the hub
    unigram_count_V: Tensor | None = None  #: of the training text, where it is known
    step: int | None = None  #: optimizer steps of a run's checkpoint; None for what is no run

    @property
    def has_head(self) -> bool:
        return self.head != NO_HEAD

    @torch.no_grad()
    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of token ids."""
        self._check_head()
        return self.model(input_ids=ids_BT.to(self.model.device)).logits

    @torch.no_grad()
    def logits_at(self, ids_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        """Logits [M, V], in float32 at least, of the positions that a mask chooses."""
        self._check_head()
        device = self.model.device
        return logits_at(self.model, ids_BT.to(device), chosen_BT.to(device))

    def _check_head(self) -> None:
        if not self.has_head:
            raise HeadlessError(f"{self.place} has no LM head, so that it makes no logits")

    @torch.no_grad()
    def hidden_states(self, ids_BT: Tensor) -> tuple[Tensor, ...]:
        """[B, T, D] before the first block and after each one; the last is after the final norm."""
        body: Any = self.model.base_model
        return body(input_ids=ids_BT.to(body.device), output_hidden_states=True).hidden_states

    @torch.no_grad()
    def last_states(
        self, ids_BT: Tensor, *, with_logits: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Last hidden states [B, T, D] and, where wanted, the logits of the same forward pass."""
        ids_BT = ids_BT.to(self.model.device)
        if not with_logits:
            return self.model.base_model(input_ids=ids_BT).last_hidden_state, None
        output = self.model(input_ids=ids_BT, output_hidden_states=True)
        return output.hidden_states[-1], output.logits

    def check_tokenizer(self) -> None:
        """Refuse to read or write text without a tokenizer."""
        if self.tokenizer is None:
            raise HeadlessError(
                f"{self.place} has no tokenizer, so that it reads no text: where it was trained on "
                "text, copy the files of its tokenizer into it (tokenizer.json, "
                "tokenizer_config.json)"
            )

    def text_of(self, token: int) -> str:
        """A token's text; without a tokenizer its id."""
        return str(token) if self.tokenizer is None else self.tokenizer.decode([token])

    def encode_prompt(self, prompt: str, max_new_tokens: int) -> tuple[Tensor, int]:
        """Token ids [1, T] of a prompt, and how many tokens can follow.

        An empty prompt begins a document. The name of a special token is text.
        """
        self.check_tokenizer()
        ids = self.tokenizer.encode(prompt, add_special_tokens=False)
        ids = ids or [self.tokenizer.eos_token_id]
        room = check_prompt(self.model, len(ids))
        return torch.tensor([ids], device=self.model.device), min(room, max_new_tokens)

    @torch.no_grad()
    def generate(
        self,
        prompt: str = "",
        max_new_tokens: int = 100,
        *,
        temperature: float = 0.8,
        top_k: int | None = 50,
        top_p: float | None = None,
        seed: int = 0,
        streamer: Any = None,
    ) -> str:
        """The continuation of a prompt by a causal model; the options are those of the verb.

        The same seed gives the same text on the same device. `streamer` is one of Transformers'.
        """
        check_sampling(max_new_tokens, temperature, top_k, top_p, seed)
        drawn = temperature > 0
        ids_1T, new = self.encode_prompt(prompt, max_new_tokens)
        model: Any = self.model
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            tokens_1T = model.generate(
                input_ids=ids_1T,
                attention_mask=torch.ones_like(ids_1T),
                max_new_tokens=new,
                streamer=streamer,
                do_sample=drawn,
                temperature=temperature if drawn else None,
                top_k=(top_k or 0) if drawn else None,
                top_p=(top_p or 1.0) if drawn else None,
            )
        return self.tokenizer.decode(tokens_1T[0, ids_1T.shape[1] :], skip_special_tokens=True)

    def fill_masks(self, prompt: str) -> list[list[tuple[str, float]]]:
        """For each mask of a prompt, a masked model's likeliest tokens and their probabilities."""
        self.check_tokenizer()
        tokenizer = self.tokenizer
        ids = tokenizer.encode(prompt, split_special_tokens=False)  # masks are tokens
        if tokenizer.mask_token_id not in ids:
            raise HeadlessError(
                f"{self.name} is a masked model: write {tokenizer.mask_token} in the prompt where "
                "it is to fill in a token"
            )
        check_prompt(self.model, len(ids))
        ids_1T = torch.tensor([ids], device=self.model.device)
        logits_KV = self.logits_at(ids_1T, ids_1T == tokenizer.mask_token_id)
        return likeliest(logits_KV, GUESSES, tokenizer)

    def export(self, output: str | Path, **options: Any) -> dict[str, Any]:
        """Write a run as a Hugging Face directory: see `headless.export`."""
        if self.step is None:
            raise HeadlessError(f"{self.place} is no run: it is a Hugging Face model already")
        return export(self.place, output, **{"head": self.head} | options)

    def count(self, token: int) -> int | None:
        """Occurrences of a token in the training text, where they are known."""
        return None if self.unigram_count_V is None else int(self.unigram_count_V[token])

    def token_id(self, token: str | int) -> int:
        """The id of a text that is one token, or of a special token; an id is given back."""
        if isinstance(token, int):
            size = self.model.config.vocab_size
            if not 0 <= token < size:
                raise HeadlessError(f"token_id must be from 0 to {size - 1}, got {token}")
            return token
        self.check_tokenizer()
        tokenizer = self.tokenizer
        ids = tokenizer.encode(token, add_special_tokens=False, split_special_tokens=False)
        if len(ids) == 1:
            return ids[0]
        if not ids:
            raise HeadlessError("the token is empty: write a text, e.g. --token ' king'")
        pieces = ", ".join(f"{tokenizer.decode([i])!r} ({i})" for i in ids)
        line = f"{token!r} is {len(ids)} tokens: {pieces}; name one, e.g. --token_id {ids[0]}"
        is_one = len(tokenizer.encode(f" {token}", add_special_tokens=False)) == 1
        raise HeadlessError(f"{line}, or {f' {token}'!r}, which is one" if is_one else line)

    def table(self, table: Table) -> np.ndarray:
        """The input embeddings or the rows of the output head: float32 [V, D], without a bias."""
        model: Any = self.model
        if table == "output" and getattr(model.config, FOLDED, None):
            raise HeadlessError(
                f"the export folded the bias of {self.name}'s head into its rows: name the run for "
                "the rows that were trained, or choose --table input"
            )
        module = model.get_input_embeddings() if table == "input" else model.get_output_embeddings()
        if not isinstance(module, nn.Embedding | nn.Linear):
            raise HeadlessError(f"the {table} table of {self.name} is a {type(module).__name__}")
        return module.weight.detach().float().cpu().numpy()

    def neighbors(
        self,
        *queries: str | int | Sequence[tuple[int, float]],
        k: int = 10,
        table: Table = "input",
        metric: Metric = "cosine",
        index: Kind = "exact",
    ) -> list[list[dict[str, Any]]]:
        """The nearest rows of a table to each query, other than the query's tokens.

        Each with `token_id`, `text`, `score` and, where it is known, its `count` in the training
        text. "l2" is the squared distance.

        Args:
            *queries: a token's text or id; or a sum of tokens with a sign, for an analogy [(a, 1),
                (b, -1), (c, 1)], of which each row is taken at length 1 (Mikolov et al. 2013).
        """
        if k < 1:
            raise HeadlessError(f"k must be at least 1, got {k}")
        sums = [[(self.token_id(q), 1.0)] if isinstance(q, str | int) else list(q) for q in queries]
        rows_VD = self.table(table)
        search = VectorIndex(rows_VD, index, metric).search
        vectors = []
        for tokens in sums:
            ids, signs = zip(*tokens, strict=True)
            terms = rows_VD[list(ids)] if len(ids) == 1 else unit(rows_VD[list(ids)])
            vectors.append(np.asarray(signs, dtype=np.float32) @ terms)
        scores_Qk, ids_Qk = search(np.stack(vectors), k + max(map(len, sums)))
        count = self.count
        neighbors = []
        for tokens, scores, ids in zip(sums, scores_Qk.tolist(), ids_Qk.tolist(), strict=True):
            excluded = {token for token, _ in tokens} | {-1}
            near = [
                {"token_id": i, "text": self.text_of(i), "score": score, "count": count(i)}
                for i, score in zip(ids, scores, strict=True)
                if i not in excluded
            ]
            neighbors.append(near[:k])
        return neighbors
