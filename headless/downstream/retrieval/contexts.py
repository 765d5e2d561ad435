"""What a store knows about one context: its nearest contexts, and what followed them.

Shapes: D hidden size, V vocabulary, k neighbours.
"""

from dataclasses import dataclass

from torch import Tensor

from headless.downstream.loading import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.knn_lm import check_numbers, knn_distribution
from headless.downstream.retrieval.store import HiddenStore
from headless.downstream.retrieval.tokens import ContextView
from headless.errors import HeadlessError

WEIGHT, TEMPERATURE = 0.25, 0.05  # where none are given
BEFORE, AFTER = 12, 4  # tokens of a neighbour's text around its next token


@dataclass(frozen=True)
class ContextNeighbor:
    """A stored context.

    Args:
        position: of its next token in the store's text.
        distance: squared, of the hidden states.
        before: the text that ends it.
        token: the next token.
        after: what followed.
    """

    position: int
    distance: float
    before: str
    token: str
    after: str


@dataclass(frozen=True)
class MixedToken:
    """Probabilities of a next token: the model's, the neighbours' and the mixture's."""

    token_id: int
    text: str
    model: float
    knn: float
    mixture: float


def nearest_contexts(
    lm: LanguageModel, store: HiddenStore, index: VectorIndex, hidden_D: Tensor, k: int
) -> list[ContextNeighbor]:
    """The k stored contexts whose hidden states are nearest.

    Raises:
        HeadlessError: k below 1.
    """
    distances_1k, rows_1k = index.search(hidden_D[None].numpy(), k)
    found = []
    for distance, row in zip(distances_1k[0].tolist(), rows_1k[0].tolist(), strict=True):
        if row < 0:
            continue
        before, token, after = store.window(row, BEFORE, AFTER)
        texts = (lm.tokenizer.decode(ids) for ids in (before, [token], after))
        found.append(ContextNeighbor(row + 1, distance, *texts))
    return found


def mixed_tokens(
    lm: LanguageModel,
    store: HiddenStore,
    index: VectorIndex,
    view: ContextView,
    k: int,
    *,
    neighbors: int = 256,
    weight: float | None = None,
    temperature: float | None = None,
) -> list[MixedToken]:
    """The k likeliest next tokens of the mixture.

    Args:
        lm: the store's model.
        store: the contexts.
        index: of the store's keys.
        view: of the context.
        k: how many tokens.
        neighbors: how many contexts vote.
        weight: λ; None: 0.25.
        temperature: in units of the store's spread; None: 0.05.

    Raises:
        HeadlessError: a value out of its range.
    """
    check_numbers(weight, temperature, neighbors)
    weight = WEIGHT if weight is None else weight
    tau = (TEMPERATURE if temperature is None else temperature) * store.manifest.spread
    distances_1k, rows_1k = index.search(view.hidden_D[None].numpy(), neighbors)
    there_k = rows_1k[0] >= 0
    values_k = store.values_N[rows_1k[0][there_k]]
    shares = knn_distribution(distances_1k[0][there_k], values_k, tau)
    if view.log_probability_V is None:
        raise HeadlessError(f"{lm.name} has no LM head: there is nothing to mix neighbours with")
    model_V = view.log_probability_V.double().exp()
    mixture_V = model_V * (1.0 - weight)
    for token, share in shares.items():
        mixture_V[token] += weight * share
    best = mixture_V.topk(min(k, len(mixture_V)))
    return [
        MixedToken(t, lm.tokenizer.decode([t]), float(model_V[t]), shares.get(t, 0.0), p)
        for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
