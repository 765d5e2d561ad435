"""What a model makes of a context, and what a store knows about it: its nearest contexts, and what
followed them.

Shapes: D hidden size, V vocabulary, k neighbours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from headless.downstream.language_model import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.knn_lm import Mixture, knn_distribution
from headless.downstream.retrieval.store import HiddenStore
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

WEIGHT, TEMPERATURE = 0.25, 0.05  # where none are given
BEFORE, AFTER = 12, 4  # tokens of a neighbour's text around its next token


@dataclass(frozen=True)
class NextToken:
    """A token that may follow a context."""

    token_id: int  #: of the vocabulary
    text: str  #: as it stands in a text
    log_probability: float  #: the model's, in nats
    pmi: float | None  #: log p(v | context) - log p(v), where the unigram distribution is known
    count: int | None  #: how often it occurs in the training text, where that is known


@dataclass(frozen=True)
class ContextView:
    """What a model makes of a context."""

    hidden_D: Tensor  #: its last hidden state, float32
    #: of the next token (at a mask: of the token there); None without an LM head
    log_probability_V: Tensor | None
    likeliest: list[NextToken]  #: by probability
    #: by pointwise mutual information with the context: what the context makes likelier than it is
    #: anywhere; None where the unigram distribution is not known
    specific: list[NextToken] | None


@dataclass(frozen=True)
class ContextNeighbor:
    """A stored context."""

    position: int  #: of its next token in the store's text
    distance: float  #: squared, of the hidden states
    before: str  #: the text that ends it
    token: str  #: the next token
    after: str  #: what followed


@dataclass(frozen=True)
class MixedToken:
    """Probabilities of a next token: the model's, the neighbours' and the mixture's."""

    token_id: int
    text: str
    model: float
    knn: float
    mixture: float


def view_context(
    lm: LanguageModel, context: str, k: int = 10, *, min_count: int = 10
) -> ContextView:
    """The k likeliest tokens after a context, and the k that are most specific for it.

    Args:
        lm: the model; a masked one needs exactly one mask in the context.
        context: a text; the empty one begins a document.
        k: how many tokens.
        min_count: leave rarer tokens out of `specific`: their mutual information is mostly noise.
    """
    if k < 1:
        raise HeadlessError(f"k must be at least 1, got {k}")
    if lm.task == "causal":
        ids_1T, _ = lm.encode_prompt(context, 1)
        place = -1
    else:
        ids = lm.tokenizer.encode(context, split_special_tokens=False)  # its mask is a token
        if ids.count(lm.tokenizer.mask_token_id) != 1:
            raise HeadlessError(
                f"{lm.name} is a masked model: write {lm.tokenizer.mask_token} exactly once in the "
                "context"
            )
        ids_1T, place = torch.tensor([ids]), ids.index(lm.tokenizer.mask_token_id)
    hidden_1TD, logits_1TV = lm.last_states(ids_1T, with_logits=lm.has_head)
    hidden_D = hidden_1TD[0, place].float().cpu()
    if logits_1TV is None:
        return ContextView(hidden_D, None, [], None)
    log_V = logits_1TV[0, place].float().cpu().log_softmax(dim=-1)
    counts_V = None if lm.unigram_count_V is None else lm.unigram_count_V.cpu()
    pmi_V = None if counts_V is None else log_V - log_unigram(counts_V)

    def best(values_V: Tensor, most: int) -> list[NextToken]:
        return [
            NextToken(
                i,
                lm.tokenizer.decode([i]),
                float(log_V[i]),
                None if pmi_V is None else float(pmi_V[i]),
                lm.count(i),
            )
            for i in values_V.topk(min(k, most)).indices.tolist()
        ]

    specific = None
    if pmi_V is not None and counts_V is not None:
        frequent_V = counts_V >= min_count
        specific = best(pmi_V.where(frequent_V, -torch.inf), int(frequent_V.sum()))
    return ContextView(hidden_D, log_V, best(log_V, len(log_V)), specific)


def nearest_contexts(
    lm: LanguageModel, store: HiddenStore, index: VectorIndex, hidden_D: Tensor, k: int
) -> list[ContextNeighbor]:
    """The k stored contexts whose hidden states are nearest."""
    distances_1k, rows_1k = index.search(hidden_D[None].numpy(), k)
    near = []
    for distance, row in zip(distances_1k[0].tolist(), rows_1k[0].tolist(), strict=True):
        if row >= 0:
            before, token, after = store.window(row, BEFORE, AFTER)
            texts = (lm.tokenizer.decode(ids) for ids in (before, [token], after))
            near.append(ContextNeighbor(row + 1, distance, *texts))
    return near


def mixed_tokens(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    view: ContextView,
    k: int,
    mixture: Mixture | None = None,
) -> list[MixedToken]:
    """The k likeliest next tokens of the mixture of the model and the neighbours of a context."""
    mixture = mixture or Mixture()
    if view.log_probability_V is None:
        raise HeadlessError(f"{lm.name} has no LM head: there is nothing to mix neighbours with")
    weight = WEIGHT if mixture.weight is None else mixture.weight
    tau = (mixture.temperature or TEMPERATURE) * store.manifest.spread
    distances_1k, rows_1k = index.search(view.hidden_D[None].numpy(), mixture.neighbors)
    there_k = rows_1k[0] >= 0
    values_k = store.values_N[rows_1k[0][there_k]]
    shares = knn_distribution(distances_1k[0][there_k], values_k, tau)
    model_V = view.log_probability_V.double().exp()
    mixture_V = model_V * (1.0 - weight)
    for token, share in shares.items():
        mixture_V[token] += weight * share
    best = mixture_V.topk(min(k, len(mixture_V)))
    return [
        MixedToken(t, lm.tokenizer.decode([t]), float(model_V[t]), shares.get(t, 0.0), p)
        for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
