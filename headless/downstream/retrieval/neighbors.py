"""The verb: nearest tokens, likeliest next tokens, nearest contexts."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import NeighborOptions, write_output
from headless.downstream.retrieval.contexts import nearest_contexts, view_context
from headless.downstream.retrieval.indexes import VectorIndex, load_faiss
from headless.downstream.retrieval.store import PLACE, HiddenStore, build_store, open_store
from headless.errors import HeadlessError
from headless.files import refuse_to_lose
from headless.isolation import isolated
from headless.progress import Display, Report


@isolated()
def neighbors(
    model: str | Path | LanguageModel,
    *,
    progress: bool | Report = False,
    **options: Any,
) -> dict[str, Any]:
    """Nearest tokens of a token; what a context makes likely; nearest contexts in a store.

    Args:
        model: as of `load`, or one that is open.
        progress: show it, or a function that gets (phase, done, in all).
        **options: see `NeighborOptions`; one of token, token_id, analogy, context and build_store
            says what is done.

    Returns:
        "model", "head" and "tokens" with "table" and "metric"; "contexts"; or "store":
        plain values, what `output` holds.
    """
    place = model.place if isinstance(model, LanguageModel) else str(model)
    settings = NeighborOptions(place, **options)
    # What can be wrong shows before the work.
    if settings.build_store is not None:
        refuse_to_lose(Path(settings.store or ""), overwrite=settings.overwrite, **PLACE)
    if settings.build_store is None or settings.index not in ("auto", "exact"):
        load_faiss()
    lm = load(
        model,
        head=settings.head,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    _check_model(settings, lm)
    result: dict[str, Any] = {"model": lm.name, "head": lm.head}
    with Display(progress) as display:
        if settings.build_store is not None:
            result["store"] = asdict(_build(settings, lm, display.report).manifest)
        elif settings.context is not None:
            result["contexts"] = _contexts(settings, lm)
        else:
            result |= {"table": settings.table, "metric": settings.metric}
            result["tokens"] = _tokens(settings, lm)
    write_output(settings.output, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _check_model(settings: NeighborOptions, lm: LanguageModel) -> None:
    """Refuse what a model without an LM head or without a tokenizer cannot do."""
    if lm.tokenizer is None:
        raise HeadlessError(
            f"{lm.place} has no tokenizer: copy the files of its tokenizer into it "
            "(tokenizer.json, tokenizer_config.json)"
        )
    if lm.has_head:
        return
    if settings.context is not None and settings.store is None:
        advice = ": name a --store of its hidden states for the nearest contexts"
        raise HeadlessError(
            f"{lm.place} has no LM head, so that no token is likely in a context"
            + (advice if lm.task == "causal" else "")
        )
    if settings.table == "output" and settings.context is None and settings.build_store is None:
        raise HeadlessError(f"{lm.place} has no LM head: choose --table input")


def _index(settings: NeighborOptions, store: HiddenStore) -> VectorIndex:
    return store.index(None if settings.index == "auto" else settings.index)


def _tokens(settings: NeighborOptions, lm: LanguageModel) -> list[dict[str, Any]]:
    queries: list[Any]
    if settings.analogy is not None:
        a, b, c = (lm.token_id(text) for text in settings.analogy)
        queries = [[(a, 1.0), (b, -1.0), (c, 1.0)]]
        names = ["{!r} - {!r} + {!r}".format(*settings.analogy)]
    else:
        tokens: Any = settings.token if settings.token_id is None else settings.token_id
        queries = [lm.token_id(t) for t in (tokens if isinstance(tokens, list) else [tokens])]
        names = [repr(lm.tokenizer.decode([i])) for i in queries]
    kind = "exact" if settings.index == "auto" else settings.index
    options: Any = {"table": settings.table, "metric": settings.metric, "index": kind}
    rows = lm.neighbors(*queries, k=settings.k, **options)
    return [{"query": n, "neighbors": row} for n, row in zip(names, rows, strict=True)]


def _contexts(settings: NeighborOptions, lm: LanguageModel) -> list[dict[str, Any]]:
    store = None if settings.store is None else open_store(settings.store, lm)
    index = store and _index(settings, store)
    records = []
    texts = settings.context if isinstance(settings.context, list) else [settings.context or ""]
    for text in texts:
        view = view_context(lm, text, settings.k, min_count=settings.min_count)
        record = {"context": text, "likeliest": view.likeliest, "specific": view.specific}
        if store is not None and index is not None:
            record["contexts"] = nearest_contexts(lm, store, index, view.hidden_D, settings.k)
        records.append(record)
    return records


def _build(settings: NeighborOptions, lm: LanguageModel, progress: Report) -> HiddenStore:
    store = build_store(
        lm,
        str(settings.build_store),
        Path(settings.store or ""),
        split=settings.split,
        max_tokens=settings.max_tokens,
        context_length=settings.context_length,
        overwrite=settings.overwrite,
        progress=partial(progress, "hidden states"),
    )
    if settings.index not in ("auto", "exact"):
        progress("indexing", 0, 0)
        _index(settings, store)
    return store
