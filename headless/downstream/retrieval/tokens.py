"""Nearest tokens of a token, and of what a context makes of it.

Shapes: D hidden size, V vocabulary, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headless.downstream.generate import encode_prompt
from headless.downstream.loading import LanguageModel
from headless.downstream.retrieval.indexes import VectorIndex
from headless.downstream.retrieval.library import Device, Kind, Metric
from headless.downstream.retrieval.windows import hidden_and_logits
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram
from headless.training.hugging_face import FOLDED

Table = Literal["input", "output"]


@dataclass(frozen=True)
class TokenNeighbor:
    """A token and how near it is.

    Args:
        token_id: of the vocabulary.
        text: as it stands in a text, with its blank.
        score: cosine, inner product or squared distance.
        count: how often it occurs in the training text, where that is known.
    """

    token_id: int
    text: str
    score: float
    count: int | None


@dataclass(frozen=True)
class NextToken:
    """A token that may follow a context.

    Args:
        token_id: of the vocabulary.
        text: as it stands in a text.
        log_probability: the model's, in nats.
        pmi: log p(v | context) - log p(v), where the unigram distribution is known.
        count: how often it occurs in the training text, where that is known.
    """

    token_id: int
    text: str
    log_probability: float
    pmi: float | None
    count: int | None


def token_of(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token, or of a special token by its name.

    Raises:
        HeadlessError: it is none or several; the line shows its pieces.
    """
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise HeadlessError("the token is empty: write a text, e.g. --token ' king'")
    pieces = ", ".join(f"{tokenizer.decode([i])!r} ({i})" for i in ids)
    line = f"{text!r} is {len(ids)} tokens: {pieces}; name one, e.g. --token_id {ids[0]}"
    spaced = tokenizer.encode(f" {text}", add_special_tokens=False)
    raise HeadlessError(f"{line}, or {f' {text}'!r}, which is one" if len(spaced) == 1 else line)


def check_token_id(lm: LanguageModel, token_id: int) -> int:
    """The id itself.

    Raises:
        HeadlessError: the vocabulary has no such id.
    """
    size = lm.model.config.vocab_size
    if not 0 <= token_id < size:
        raise HeadlessError(f"token_id must be from 0 to {size - 1}, got {token_id}")
    return token_id


def token_table(lm: LanguageModel, table: Table) -> np.ndarray:
    """The input embeddings or the rows of the output head: float32 [V, D], without a bias.

    Raises:
        HeadlessError: the head has no matrix.
    """
    model: Any = lm.model
    if table == "output" and getattr(model.config, FOLDED, None):
        raise HeadlessError(
            f"the export folded the bias of {lm.name}'s head into its rows: name the run for the "
            "rows that were trained, or choose --table input"
        )
    module = model.get_input_embeddings() if table == "input" else model.get_output_embeddings()
    if not isinstance(module, nn.Embedding | nn.Linear):
        raise HeadlessError(f"the {table} table of {lm.name} is a {type(module).__name__}")
    return module.weight.detach().float().cpu().numpy()


def nearest_tokens(
    lm: LanguageModel,
    queries: Sequence[Sequence[tuple[int, float]]],
    k: int = 10,
    *,
    table: Table = "input",
    metric: Metric = "cosine",
    kind: Kind = "exact",
    nprobe: int | None = None,
    ef: int | None = None,
    device: Device = "auto",
) -> list[list[TokenNeighbor]]:
    """The nearest rows of a table to sums of its rows.

    Args:
        lm: whose table it is.
        queries: each a sum of tokens with a sign, [(id, 1.0)] for a single token, [(a, 1.0),
            (b, -1.0), (c, 1.0)] for an analogy, of which each row is taken at length 1 (Mikolov et
            al. 2013). A query's own tokens are left out of its neighbours.
        k: how many neighbours.
        table: "input" embeddings or the "output" head's matrix.
        metric: see `VectorIndex`.
        kind: see `VectorIndex`.
        nprobe: see `VectorIndex.tune`.
        ef: see `VectorIndex.tune`.
        device: of the index.

    Raises:
        HeadlessError: k below 1, or see `VectorIndex.build`.
    """
    if k < 1:
        raise HeadlessError(f"k must be at least 1, got {k}")
    rows_VD = token_table(lm, table)
    index = VectorIndex.build(rows_VD, kind, metric, nprobe=nprobe, ef=ef, device=device)
    vectors = []
    for query in queries:
        ids, signs = zip(*query, strict=True)
        chosen = rows_VD[list(ids)]
        if len(ids) > 1:
            chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
        vectors.append(np.asarray(signs, dtype=np.float32) @ chosen)
    most = max(len(query) for query in queries)
    scores_Qk, ids_Qk = index.search(np.stack(vectors), k + most)
    found = []
    for query, scores, ids in zip(queries, scores_Qk.tolist(), ids_Qk.tolist(), strict=True):
        own = {token for token, _ in query} | {-1}
        pairs = [(i, s) for i, s in zip(ids, scores, strict=True) if i not in own][:k]
        found.append([TokenNeighbor(i, _text(lm, i), s, count_of(lm, i)) for i, s in pairs])
    return found


@dataclass(frozen=True)
class ContextView:
    """What a model makes of a context.

    Args:
        hidden_D: its last hidden state, float32.
        log_probability_V: of the next token (at a mask: of the token there); None without an LM
            head.
        likeliest: by probability.
        specific: by pointwise mutual information with the context: what the context makes likelier
            than it is anywhere; None where the unigram distribution is not known.
    """

    hidden_D: Tensor
    log_probability_V: Tensor | None
    likeliest: list[NextToken]
    specific: list[NextToken] | None


@torch.no_grad()
def view_context(
    lm: LanguageModel,
    context: str,
    k: int = 10,
    *,
    min_count: int = 10,
) -> ContextView:
    """The tokens whose output rows, with their biases, have the largest inner product with a
    context's hidden state: the likeliest. Their log-probabilities need all rows anyway, so that
    there is nothing for an index to spare (`FaissHead` searches without them).

    Args:
        lm: the model; a masked one needs exactly one mask in the context.
        context: a text; the empty one begins a document.
        k: how many tokens.
        min_count: leave rarer tokens out of `specific`: their mutual information is mostly noise.

    Raises:
        HeadlessError: a context that is too long or has not one mask, or k below 1.
    """
    if k < 1:
        raise HeadlessError(f"k must be at least 1, got {k}")
    if lm.task == "causal":
        ids_1T, _ = encode_prompt(lm, context, 1)
        place = -1
    else:
        ids = lm.tokenizer.encode(context, split_special_tokens=False)  # its mask is a token
        if ids.count(lm.tokenizer.mask_token_id) != 1:
            raise HeadlessError(
                f"{lm.name} is a masked model: write {lm.tokenizer.mask_token} exactly once in the "
                "context"
            )
        ids_1T, place = torch.tensor([ids]), ids.index(lm.tokenizer.mask_token_id)
    hidden_1TD, logits_1TV = hidden_and_logits(lm, ids_1T, lm.has_head)
    hidden_D = hidden_1TD[0, place].float().cpu()
    if logits_1TV is None:
        return ContextView(hidden_D, None, [], None)
    log_V = logits_1TV[0, place].float().cpu().log_softmax(dim=-1)
    pmi_V = None
    if lm.unigram_count_V is not None:
        pmi_V = log_V - log_unigram(lm.unigram_count_V.cpu())
    likeliest = log_V.topk(min(k, len(log_V))).indices.tolist()
    return ContextView(
        hidden_D,
        log_V,
        [_next(lm, i, log_V, pmi_V) for i in likeliest],
        None if pmi_V is None else _specific(lm, log_V, pmi_V, k, min_count),
    )


def _specific(
    lm: LanguageModel, log_V: Tensor, pmi_V: Tensor, k: int, min_count: int
) -> list[NextToken]:
    assert lm.unigram_count_V is not None
    rare_V = lm.unigram_count_V.cpu() < min_count
    best = pmi_V.masked_fill(rare_V, -torch.inf).topk(min(k, int((~rare_V).sum()))).indices
    return [_next(lm, i, log_V, pmi_V) for i in best.tolist()]


def _next(lm: LanguageModel, token: int, log_V: Tensor, pmi_V: Tensor | None) -> NextToken:
    pmi = None if pmi_V is None else float(pmi_V[token])
    return NextToken(token, _text(lm, token), float(log_V[token]), pmi, count_of(lm, token))


def count_of(lm: LanguageModel, token: int) -> int | None:
    """How often a token occurs in the training text, where that is known."""
    return None if lm.unigram_count_V is None else int(lm.unigram_count_V[token])


def _text(lm: LanguageModel, token: int) -> str:
    return lm.tokenizer.decode([token])
