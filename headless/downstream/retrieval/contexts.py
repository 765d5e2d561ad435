"""What a model makes of a context, and the stored contexts nearest to it.

Shapes: k tokens or contexts, T tokens, D hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.store import HiddenStore
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

BEFORE, AFTER = 12, 4  # tokens of a neighbour's text around its next token


@dataclass(frozen=True)
class ContextView:
    """What a model makes of a context."""

    hidden_D: Tensor  #: its last hidden state, float32
    #: token_id, text, log_probability, pmi and count of the likeliest tokens; none without a head
    likeliest: list[dict[str, Any]]
    #: by pointwise mutual information with the context; None without a unigram distribution
    specific: list[dict[str, Any]] | None


def view_context(
    lm: LanguageModel, context: str, k: int = 10, *, min_count: int = 10
) -> ContextView:
    """The k likeliest tokens after a context, and the k that are most specific for it.

    A masked model needs exactly one mask in the context; the empty context begins a document.
    Tokens rarer than `min_count` are not specific: their mutual information is mostly noise.
    """
    if lm.task == "causal":
        ids_1T, place = lm.encode_prompt(context, 1)[0], -1
    else:
        ids = lm.tokenizer.encode(context, split_special_tokens=False)  # its mask is a token
        if ids.count(lm.tokenizer.mask_token_id) != 1:
            raise HeadlessError(
                f"{lm.name} is a masked model: write {lm.tokenizer.mask_token} exactly once in the "
                "context"
            )
        ids_1T, place = torch.tensor([ids]), ids.index(lm.tokenizer.mask_token_id)
    hidden_D = lm.last_states(ids_1T, with_logits=False)[0][0, place].float().cpu()
    if not lm.has_head:
        return ContextView(hidden_D, [], None)
    asked_1T = torch.zeros_like(ids_1T, dtype=torch.bool)
    asked_1T[0, place] = True
    log_V = lm.logits_at(ids_1T, asked_1T)[0].float().cpu().log_softmax(dim=-1)
    counts_V = None if lm.unigram_count_V is None else lm.unigram_count_V.cpu()
    pmi_V = None if counts_V is None else log_V - log_unigram(counts_V)

    def largest(values_V: Tensor, limit: int) -> list[dict[str, Any]]:
        return [
            {
                "token_id": i,
                "text": lm.tokenizer.decode([i]),
                "log_probability": float(log_V[i]),
                "pmi": None if pmi_V is None else float(pmi_V[i]),
                "count": lm.count(i),
            }
            for i in values_V.topk(min(k, limit)).indices.tolist()
        ]

    specific = None
    if pmi_V is not None and counts_V is not None:
        frequent_V = counts_V >= min_count
        specific = largest(pmi_V.where(frequent_V, -torch.inf), int(frequent_V.sum()))
    return ContextView(hidden_D, largest(log_V, len(log_V)), specific)


def nearest_contexts(
    lm: LanguageModel, store: HiddenStore, index: VectorIndex, hidden_D: Tensor, k: int
) -> list[dict[str, Any]]:
    """The k stored contexts whose hidden states are nearest.

    Each with the `position` of its next token in the store's text, the squared `distance`, the
    texts `before` and `after`, and the next `token`.
    """
    distances_1k, rows_1k = index.search(hidden_D[None].numpy(), k)
    contexts = []
    for distance, row in zip(distances_1k[0].tolist(), rows_1k[0].tolist(), strict=True):
        if row >= 0:
            before, token, after = store.window(row, BEFORE, AFTER)
            texts = {"before": before, "token": [token], "after": after}
            words = {name: lm.tokenizer.decode(ids) for name, ids in texts.items()}
            contexts.append({"position": row + 1, "distance": distance, **words})
    return contexts
