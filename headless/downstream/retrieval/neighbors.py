"""The verb: nearest tokens, likeliest next tokens, nearest contexts."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import NeighborOptions
from headless.downstream.retrieval.contexts import (
    Mixture,
    knn_lm_scores,
    mixed_tokens,
    nearest_contexts,
    view_context,
)
from headless.downstream.retrieval.indexes import Search, VectorIndex, automatic_kind, load_faiss
from headless.downstream.retrieval.store import HiddenStore, build_store, check_place, open_store
from headless.errors import HeadlessError
from headless.files import write_text
from headless.progress import Report, no_report


def neighbors(
    model: str | Path | LanguageModel,
    *,
    progress: Report = no_report,
    **options: Any,
) -> dict[str, Any]:
    """Nearest tokens of a token; what a context makes likely; nearest contexts in a store.

    Args:
        model: as of `load`, or one that is open.
        progress: gets what is done, how many of them and how many in all.
        **options: see `NeighborOptions`; one of token, token_id, analogy, context, build_store and
            evaluate says what is wanted.

    Returns:
        "model", "head" and, by what is wanted, "tokens" with "table" and "metric"; "contexts";
        "store"; or "store", "index" and "scores": plain values, what `output` holds.
    """
    place = model.place if isinstance(model, LanguageModel) else str(model)
    asked = NeighborOptions(place, **options)
    mixture = Mixture(asked.knn_neighbors, asked.knn_weight, asked.knn_temperature)
    if asked.build_store is not None:
        check_place(Path(asked.store or ""), asked.overwrite)
    if asked.build_store is None or asked.index not in ("auto", "exact"):
        load_faiss()  # what is missing shows before the work
    lm = load(
        model, head=asked.head, device=asked.device, trust_remote_code=asked.trust_remote_code
    )
    _check_model(asked, lm)
    if asked.build_store is not None:
        result = _build(asked, lm, progress)
    elif asked.evaluate is not None:
        store, index = _open(asked, lm, progress)
        scores = knn_lm_scores(
            lm,
            store,
            index,
            asked.evaluate,
            mixture,
            split=asked.split or "validation",
            limit=asked.limit,
            progress=partial(progress, "tokens"),
        )
        result = {"store": asdict(store.manifest), "index": index.kind, "scores": asdict(scores)}
    elif asked.context is not None:
        result = {"contexts": _contexts(asked, lm, mixture, progress)}
    else:
        result = {"table": asked.table, "metric": asked.metric, "tokens": _tokens(asked, lm)}
    result = {"model": lm.name, "head": lm.head, **result}
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(asked.output, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _check_model(asked: NeighborOptions, lm: LanguageModel) -> None:
    """Refuse what a model without an LM head or without a tokenizer cannot do."""
    if lm.tokenizer is None:
        raise HeadlessError(
            f"{lm.place} has no tokenizer: copy the files of its tokenizer into it "
            "(tokenizer.json, tokenizer_config.json)"
        )
    if lm.has_head:
        return
    if asked.evaluate is not None:
        raise HeadlessError(
            f"{lm.place} has no LM head, so that it predicts nothing for neighbours to help with"
        )
    if asked.context is not None and asked.store is None:
        further = ": name a --store of its hidden states for the nearest contexts"
        raise HeadlessError(
            f"{lm.place} has no LM head, so that no token is likely in a context"
            + (further if lm.task == "causal" else "")
        )
    if asked.table == "output" and asked.context is None and asked.build_store is None:
        raise HeadlessError(f"{lm.place} has no LM head: choose --table input")


def _search(asked: NeighborOptions, num_rows: int) -> Search:
    kind = automatic_kind(num_rows) if asked.index == "auto" else asked.index
    return Search(kind, asked.nprobe, asked.ef, asked.index_device)


def _tokens(asked: NeighborOptions, lm: LanguageModel) -> list[dict[str, Any]]:
    queries: list[Any]
    if asked.analogy is not None:
        a, b, c = (lm.token_id(text) for text in asked.analogy)
        queries, names = (
            [[(a, 1.0), (b, -1.0), (c, 1.0)]],
            ["{!r} - {!r} + {!r}".format(*asked.analogy)],
        )
    else:
        tokens: Any = asked.token if asked.token_id is None else asked.token_id
        queries = [lm.token_id(t) for t in (tokens if isinstance(tokens, list) else [tokens])]
        names = [repr(lm.tokenizer.decode([i])) for i in queries]
    search = _search(asked, 1)
    near = lm.neighbors(*queries, k=asked.k, table=asked.table, metric=asked.metric, search=search)
    return [{"query": n, "neighbors": row} for n, row in zip(names, near, strict=True)]


def _contexts(
    asked: NeighborOptions, lm: LanguageModel, mixture: Mixture, progress: Report
) -> list[dict[str, Any]]:
    store, index = (None, None) if asked.store is None else _open(asked, lm, progress)
    records = []
    for text in asked.context if isinstance(asked.context, list) else [asked.context]:
        view = view_context(lm, text or "", asked.k, min_count=asked.min_count)
        record: dict[str, Any] = {
            "context": text,
            "likeliest": view.likeliest,
            "specific": view.specific,
        }
        if store is not None and index is not None:
            record["contexts"] = nearest_contexts(lm, store, index, view.hidden_D, asked.k)
            if lm.has_head:
                record["mixture"] = mixed_tokens(lm, store, index, view, asked.k, mixture)
        records.append(record)
    return records


def _build(asked: NeighborOptions, lm: LanguageModel, progress: Report) -> dict[str, Any]:
    store = build_store(
        lm,
        str(asked.build_store),
        Path(asked.store or ""),
        split=asked.split or "train",
        max_tokens=asked.max_tokens,
        context_length=asked.context_length,
        overwrite=asked.overwrite,
        progress=partial(progress, "hidden states"),
    )
    if asked.index not in ("auto", "exact"):
        _index(asked, store, progress)
    return {"store": asdict(store.manifest)}


def _open(
    asked: NeighborOptions, lm: LanguageModel, progress: Report
) -> tuple[HiddenStore, VectorIndex]:
    store = open_store(Path(asked.store or ""), lm)
    return store, _index(asked, store, progress)


def _index(asked: NeighborOptions, store: HiddenStore, progress: Report) -> VectorIndex:
    return store.index(_search(asked, len(store.keys_ND)), progress=partial(progress, "indexing"))
