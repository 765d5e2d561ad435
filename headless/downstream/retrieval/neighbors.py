"""The verb: nearest tokens, likeliest next tokens, nearest contexts."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import NeighborOptions, write_output
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
        progress: show it, or a function that gets (what is done, how many of them, in all).
        **options: see `NeighborOptions`; one of token, token_id, analogy, context, build_store and
            evaluate says what is wanted.

    Returns:
        "model", "head" and, by what is wanted, "tokens" with "table" and "metric"; "contexts";
        "store"; or "store", "index" and "scores": plain values, what `output` holds.
    """
    place = model.place if isinstance(model, LanguageModel) else str(model)
    wanted = NeighborOptions(place, **options)
    mixture = Mixture(wanted.knn_neighbors, wanted.knn_weight, wanted.knn_temperature)
    if wanted.build_store is not None:
        check_place(Path(wanted.store or ""), wanted.overwrite)
    if wanted.build_store is None or wanted.index not in ("auto", "exact"):
        load_faiss()  # what is missing shows before the work
    lm = load(
        model, head=wanted.head, device=wanted.device, trust_remote_code=wanted.trust_remote_code
    )
    _check_model(wanted, lm)
    with Display(progress) as display:
        result = {"model": lm.name, "head": lm.head, **_look(wanted, lm, mixture, display.report)}
    write_output(wanted.output, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _look(
    wanted: NeighborOptions, lm: LanguageModel, mixture: Mixture, progress: Report
) -> dict[str, Any]:
    if wanted.build_store is not None:
        return _build(wanted, lm, progress)
    if wanted.evaluate is not None:
        store, index = _open(wanted, lm, progress)
        scores = knn_lm_scores(
            lm,
            store,
            index,
            wanted.evaluate,
            mixture,
            split=wanted.split or "validation",
            limit=wanted.limit,
            progress=partial(progress, "tokens"),
        )
        return {"store": asdict(store.manifest), "index": index.kind, "scores": asdict(scores)}
    if wanted.context is not None:
        return {"contexts": _contexts(wanted, lm, mixture, progress)}
    return {"table": wanted.table, "metric": wanted.metric, "tokens": _tokens(wanted, lm)}


def _check_model(wanted: NeighborOptions, lm: LanguageModel) -> None:
    """Refuse what a model without an LM head or without a tokenizer cannot do."""
    if lm.tokenizer is None:
        raise HeadlessError(
            f"{lm.place} has no tokenizer: copy the files of its tokenizer into it "
            "(tokenizer.json, tokenizer_config.json)"
        )
    if lm.has_head:
        return
    if wanted.evaluate is not None:
        raise HeadlessError(
            f"{lm.place} has no LM head, so that it predicts nothing for neighbours to help with"
        )
    if wanted.context is not None and wanted.store is None:
        further = ": name a --store of its hidden states for the nearest contexts"
        raise HeadlessError(
            f"{lm.place} has no LM head, so that no token is likely in a context"
            + (further if lm.task == "causal" else "")
        )
    if wanted.table == "output" and wanted.context is None and wanted.build_store is None:
        raise HeadlessError(f"{lm.place} has no LM head: choose --table input")


def _search(wanted: NeighborOptions, num_rows: int) -> Search:
    kind = automatic_kind(num_rows) if wanted.index == "auto" else wanted.index
    return Search(kind, wanted.nprobe, wanted.ef, wanted.index_device)


def _tokens(wanted: NeighborOptions, lm: LanguageModel) -> list[dict[str, Any]]:
    queries: list[Any]
    if wanted.analogy is not None:
        a, b, c = (lm.token_id(text) for text in wanted.analogy)
        queries, names = (
            [[(a, 1.0), (b, -1.0), (c, 1.0)]],
            ["{!r} - {!r} + {!r}".format(*wanted.analogy)],
        )
    else:
        tokens: Any = wanted.token if wanted.token_id is None else wanted.token_id
        queries = [lm.token_id(t) for t in (tokens if isinstance(tokens, list) else [tokens])]
        names = [repr(lm.tokenizer.decode([i])) for i in queries]
    search = _search(wanted, 1)
    near = lm.neighbors(
        *queries, k=wanted.k, table=wanted.table, metric=wanted.metric, search=search
    )
    return [{"query": n, "neighbors": row} for n, row in zip(names, near, strict=True)]


def _contexts(
    wanted: NeighborOptions, lm: LanguageModel, mixture: Mixture, progress: Report
) -> list[dict[str, Any]]:
    store, index = (None, None) if wanted.store is None else _open(wanted, lm, progress)
    records = []
    for text in wanted.context if isinstance(wanted.context, list) else [wanted.context]:
        view = view_context(lm, text or "", wanted.k, min_count=wanted.min_count)
        record: dict[str, Any] = {
            "context": text,
            "likeliest": view.likeliest,
            "specific": view.specific,
        }
        if store is not None and index is not None:
            record["contexts"] = nearest_contexts(lm, store, index, view.hidden_D, wanted.k)
            if lm.has_head:
                record["mixture"] = mixed_tokens(lm, store, index, view, wanted.k, mixture)
        records.append(record)
    return records


def _build(wanted: NeighborOptions, lm: LanguageModel, progress: Report) -> dict[str, Any]:
    store = build_store(
        lm,
        str(wanted.build_store),
        Path(wanted.store or ""),
        split=wanted.split or "train",
        max_tokens=wanted.max_tokens,
        context_length=wanted.context_length,
        overwrite=wanted.overwrite,
        progress=partial(progress, "hidden states"),
    )
    if wanted.index not in ("auto", "exact"):
        _index(wanted, store, progress)
    return {"store": asdict(store.manifest)}


def _open(
    wanted: NeighborOptions, lm: LanguageModel, progress: Report
) -> tuple[HiddenStore, VectorIndex]:
    store = open_store(Path(wanted.store or ""), lm)
    return store, _index(wanted, store, progress)


def _index(wanted: NeighborOptions, store: HiddenStore, progress: Report) -> VectorIndex:
    return store.index(_search(wanted, len(store.keys_ND)), progress=partial(progress, "indexing"))
