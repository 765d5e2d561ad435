"""`headless neighbors`: nearest tokens, likeliest next tokens, nearest contexts."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from headless.cli.neighbors_display import Display, show_context, show_scores, show_tokens
from headless.cli.parsing import run
from headless.errors import HeadlessError


def neighbors(
    model: str,
    token: str | list[str] | None = None,
    token_id: int | list[int] | None = None,
    analogy: list[str] | None = None,
    context: str | list[str] | None = None,
    store: Path | None = None,
    build_store: Path | None = None,
    evaluate: Path | None = None,
    k: int = 10,
    table: Literal["input", "output"] = "input",
    metric: Literal["cosine", "inner", "l2"] = "cosine",
    min_count: int = 10,
    knn_neighbors: int = 256,
    knn_weight: float | None = None,
    knn_temperature: float | None = None,
    split: Literal["train", "validation"] | None = None,
    max_tokens: int | None = None,
    limit: int | None = None,
    context_length: int | None = None,
    index: Literal["auto", "exact", "ivf", "hnsw", "ivfpq"] = "auto",
    nprobe: int | None = None,
    ef: int | None = None,
    index_device: Literal["auto", "cpu", "gpu"] = "auto",
    head: Literal["auto", "calibrated", "tied", "trained"] = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Nearest tokens of a token; what a context makes likely; nearest contexts in a store.

    Args:
        model: a run directory, a checkpoint in one, a Hugging Face directory or a hub name.
        token: nearest tokens of this one, with its blank: --token " king"; several as
            '[" king", " sea"]'.
        token_id: the same by id.
        analogy: '[a, b, c]': nearest tokens of a - b + c.
        context: the tokens that are likeliest after this text, and with --store the stored
            contexts that are nearest to it; several as ["a", "b"].
        store: a directory of hidden states.
        build_store: make the store from this prepared dataset.
        evaluate: whether neighbours from the store help to predict this prepared dataset.
        k: how many neighbours are shown.
        table: of tokens: input embeddings or the output head's rows.
        metric: of tokens: cosine, inner product or l2 (squared distance).
        min_count: rarer tokens are left out of what is specific to a context.
        knn_neighbors: how many stored contexts vote on the next token.
        knn_weight: their share λ in the mixture with the model; chosen on half of the text by
            --evaluate, 0.25 for a context.
        knn_temperature: of softmax(-distance²), in units of the store's spread; chosen by
            --evaluate, 0.05 for a context.
        split: of the dataset; train for --build_store, validation for --evaluate.
        max_tokens: the store holds only the first so many.
        limit: evaluate only the first so many tokens.
        context_length: tokens that the model reads at a time for the store; what it can, at most
            1,024.
        index: exact, or approximate (auto: by the number of rows; tokens: exact).
        nprobe: clusters that a search of ivf or ivfpq looks into.
        ef: candidates that a search of hnsw keeps.
        index_device: auto is the GPU where faiss has one.
        head: of a run; auto is the one under which it is a proper language model.
        device: of the model: auto (a GPU where there is one), cpu, cuda, ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        output: also write what is shown to this JSON file.
        overwrite: replace that file; move an existing store aside.
    """
    asked = SimpleNamespace(**locals())
    mode = _check(asked)

    from headless.downstream.loading import load_model
    from headless.downstream.retrieval.knn_lm import check_numbers
    from headless.downstream.retrieval.library import load_faiss
    from headless.downstream.retrieval.store import check_place

    check_numbers(knn_weight, knn_temperature, knn_neighbors)
    if mode is _build:
        check_place(asked.store, overwrite)
    if mode is not _build or index not in ("auto", "exact"):
        load_faiss()  # what is missing shows before the work
    lm = load_model(model, head=head, device=device, trust_remote_code=trust_remote_code)
    _check_model(asked, mode, lm)
    result = {"model": lm.name, "head": lm.head, **mode(asked, lm)}
    if output is not None:
        from headless.files import write_text

        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(result, ensure_ascii=False, indent=2) + "\n")


def _check(asked: Any) -> Callable[[Any, Any], dict[str, Any]]:
    """What is to be done; everything that can be wrong with the words."""
    if asked.token is not None and asked.token_id is not None:
        raise HeadlessError("--token and --token_id name the same thing: give one of them")
    modes = {
        "--token": (_tokens, asked.token if asked.token_id is None else asked.token_id),
        "--analogy": (_tokens, asked.analogy),
        "--context": (_contexts, asked.context),
        "--build_store": (_build, asked.build_store),
        "--evaluate": (_evaluate, asked.evaluate),
    }
    given = [name for name, (_, value) in modes.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise HeadlessError(f"give one of {', '.join(modes)}; got {found}")
    mode = modes[given[0]][0]
    if mode in (_build, _evaluate) and asked.store is None:
        raise HeadlessError("name the store's directory with --store")
    if mode is _tokens and asked.store is not None:
        raise HeadlessError("--store goes with --context, --build_store or --evaluate")
    if asked.analogy is not None and len(asked.analogy) != 3:
        raise HeadlessError(f"--analogy takes three tokens [a, b, c], got {len(asked.analogy)}")
    if asked.k < 1:
        raise HeadlessError(f"k must be at least 1, got {asked.k}")
    output = asked.output
    if output is not None and output.is_dir():
        raise HeadlessError(f"{output} is a directory: --output names a file")
    if output is not None and output.exists() and not asked.overwrite:
        raise HeadlessError(f"{output} exists: replace it with --overwrite true, or name another")
    return mode


def _check_model(asked: Any, mode: Any, lm: Any) -> None:
    """Refuse what a model without an LM head or without a tokenizer cannot do."""
    if lm.tokenizer is None:
        raise HeadlessError(
            f"{lm.place} has no tokenizer: copy the files of its tokenizer into it "
            "(tokenizer.json, tokenizer_config.json)"
        )
    if lm.has_head:
        return
    if mode is _evaluate:
        raise HeadlessError(
            f"{lm.place} has no LM head, so that it predicts nothing for neighbours to help with"
        )
    if mode is _contexts and asked.store is None:
        further = ": name a --store of its hidden states for the nearest contexts"
        raise HeadlessError(
            f"{lm.place} has no LM head, so that no token is likely in a context"
            + (further if lm.task == "causal" else "")
        )
    if mode is _tokens and asked.table == "output":
        raise HeadlessError(f"{lm.place} has no LM head: choose --table input")


def _tokens(asked: Any, lm: Any) -> dict[str, Any]:
    from headless.downstream.retrieval.tokens import check_token_id, nearest_tokens, token_of

    if asked.analogy is not None:
        a, b, c = (token_of(lm.tokenizer, text) for text in asked.analogy)
        queries = [[(a, 1.0), (b, -1.0), (c, 1.0)]]
        names = ["{!r} - {!r} + {!r}".format(*asked.analogy)]
    else:
        if asked.token_id is not None:
            ids = [check_token_id(lm, i) for i in _listed(asked.token_id)]
        else:
            ids = [token_of(lm.tokenizer, text) for text in _listed(asked.token)]
        queries = [[(i, 1.0)] for i in ids]
        names = [repr(lm.tokenizer.decode([i])) for i in ids]
    found = nearest_tokens(
        lm,
        queries,
        asked.k,
        table=asked.table,
        metric=asked.metric,
        kind="exact" if asked.index == "auto" else asked.index,
        **_search(asked),
    )
    records = [
        {"query": name, "neighbors": [asdict(n) for n in near]}
        for name, near in zip(names, found, strict=True)
    ]
    show_tokens(records, f"{lm.name}, {asked.table} table", asked.metric)
    return {"table": asked.table, "metric": asked.metric, "tokens": records}


def _contexts(asked: Any, lm: Any) -> dict[str, Any]:
    from headless.downstream.retrieval.contexts import mixed_tokens, nearest_contexts
    from headless.downstream.retrieval.tokens import view_context

    store, index = _open(asked, lm) if asked.store is not None else (None, None)
    records = []
    for text in _listed(asked.context):
        view = view_context(lm, text, asked.k, min_count=asked.min_count)
        record: dict[str, Any] = {
            "context": text,
            "likeliest": [asdict(token) for token in view.likeliest],
            "specific": view.specific and [asdict(token) for token in view.specific],
        }
        if store is not None and index is not None:
            near = nearest_contexts(lm, store, index, view.hidden_D, asked.k)
            record["contexts"] = [asdict(neighbor) for neighbor in near]
        if store is not None and index is not None and lm.has_head:
            mixed = mixed_tokens(
                lm,
                store,
                index,
                view,
                asked.k,
                neighbors=asked.knn_neighbors,
                weight=asked.knn_weight,
                temperature=asked.knn_temperature,
            )
            record["mixture"] = [asdict(token) for token in mixed]
        show_context(record, f"{lm.name}, {lm.head} head")
        records.append(record)
    if not lm.has_head:
        print(f"left out: the likeliest tokens and the mixture: {lm.name} has no LM head")
    return {"contexts": records}


def _build(asked: Any, lm: Any) -> dict[str, Any]:
    from headless.downstream.retrieval.store import build_store

    with Display("hidden states") as display:
        store = build_store(
            lm,
            asked.build_store,
            asked.store,
            split=asked.split or "train",
            max_tokens=asked.max_tokens,
            context_length=asked.context_length,
            overwrite=asked.overwrite,
            progress=display.report,
        )
    if asked.index not in ("auto", "exact"):
        _index(asked, store)
    size = (store.keys_ND.nbytes + store.values_N.nbytes) / 2**20
    print(f"{asked.store}: {store.manifest.rows:,} contexts of {lm.name}, {size:,.1f} MiB")
    return {"store": asdict(store.manifest)}


def _evaluate(asked: Any, lm: Any) -> dict[str, Any]:
    from headless.downstream.retrieval.knn_lm import knn_lm_scores

    store, index = _open(asked, lm)
    with Display("tokens") as display:
        scores = knn_lm_scores(
            lm,
            store,
            index,
            asked.evaluate,
            split=asked.split or "validation",
            limit=asked.limit,
            neighbors=asked.knn_neighbors,
            weight=asked.knn_weight,
            temperature=asked.knn_temperature,
            progress=display.report,
        )
    show_scores(scores, f"{lm.name}, {lm.head} head, {store.manifest.rows:,} stored contexts")
    return {"store": asdict(store.manifest), "index": index.kind, "scores": asdict(scores)}


def _open(asked: Any, lm: Any) -> tuple[Any, Any]:
    from headless.downstream.retrieval.store import open_store

    store = open_store(asked.store, lm)
    return store, _index(asked, store)


def _index(asked: Any, store: Any) -> Any:
    kind = None if asked.index == "auto" else asked.index
    with Display("indexing") as display:
        return store.index(kind, **_search(asked), progress=display.report)


def _search(asked: Any) -> dict[str, Any]:
    return {"nprobe": asked.nprobe, "ef": asked.ef, "device": asked.index_device}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def main(arguments: list[str]) -> None:
    """The command."""
    run(neighbors, arguments, "neighbors")
