"""The verb: nearest tokens, likeliest next tokens, nearest contexts."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import Head, check_at_least_1, check_output_file, write_output
from headless.downstream.retrieval import store as stores
from headless.downstream.retrieval.contexts import nearest_contexts, view_context
from headless.downstream.retrieval.indexes import Kind, load_faiss
from headless.errors import HeadlessError
from headless.files import refuse_to_lose
from headless.isolation import isolated
from headless.progress import Display, Report


@isolated()
def neighbors(
    model: str | Path | LanguageModel,
    token: str | list[str] | None = None,
    token_id: int | list[int] | None = None,
    analogy: list[str] | None = None,
    context: str | list[str] | None = None,
    store: Path | None = None,
    build_store: Path | None = None,
    k: int = 10,
    table: Literal["input", "output"] = "input",
    metric: Literal["cosine", "inner", "l2"] = "cosine",
    min_count: int = 10,
    split: Literal["train", "validation"] = "train",
    max_tokens: int | None = None,
    context_length: int | None = None,
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto",
    head: Head = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    *,
    progress: bool | Report = False,
) -> dict[str, Any]:
    """Nearest tokens of a token; what a context makes likely; nearest contexts in a store.

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        token: nearest tokens of this one, with its blank: " king"; several as [" king", " sea"].
        token_id: the same by id.
        analogy: '[a, b, c]': nearest tokens of a - b + c.
        context: the likeliest tokens after this text, and with --store the nearest stored
            contexts; several as ["a", "b"].
        store: a directory of hidden states.
        build_store: make the store from this prepared dataset.
        k: how many neighbours are shown.
        table: of tokens: input embeddings or the output head's rows.
        metric: of tokens: cosine, inner product or l2 (squared distance).
        min_count: rarer tokens are left out of what is specific to a context.
        split: of the dataset.
        max_tokens: the store holds only the first so many.
        context_length: tokens of a window for the store; what the model can, at most 1,024.
        index: exact, or approximate (auto: by the number of rows; tokens: exact).
        head: of a run; auto is the one under which it is a proper language model.
        device: of the model: auto (a GPU where there is one), cpu, cuda, ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        output: also write the results to this JSON file.
        overwrite: replace that file; move an existing store aside.
        progress: show it, or a function that gets (phase, done, in all).

    Returns:
        "model", "head" and "tokens" with "table" and "metric"; "contexts"; or "store": plain
        values, what `output` holds.
    """
    if token is not None and token_id is not None:
        raise HeadlessError("--token and --token_id name the same thing: give one of them")
    tokens = token if token_id is None else token_id
    words = {"--token": tokens, "--analogy": analogy}
    _check_mode(words, {"--context": context, "--build_store": build_store}, store)
    if analogy is not None and len(analogy) != 3:
        raise HeadlessError(f"--analogy takes three tokens [a, b, c], got {len(analogy)}")
    check_at_least_1(k=k, max_tokens=max_tokens)
    check_output_file(output, overwrite)
    if build_store is not None:
        refuse_to_lose(Path(store or ""), overwrite=overwrite, **stores.PLACE)
    if build_store is None or index not in ("auto", "exact"):
        load_faiss()
    lm = load(model, head=head, device=device, trust_remote_code=trust_remote_code)
    if token_id is None:
        lm.check_tokenizer()
    kind: Kind | None = None if index == "auto" else index
    result: dict[str, Any] = {"model": lm.name, "head": lm.head}
    if build_store is not None:
        of_text: Any = {"split": split, "max_tokens": max_tokens, "context_length": context_length}
        with Display(progress) as display:
            report, place = partial(display.report, "hidden states"), Path(store or "")
            made = stores.build_store(
                lm, build_store, place, **of_text, overwrite=overwrite, progress=report
            )
        if kind not in (None, "exact"):
            made.index(kind)
        result["store"] = asdict(made.manifest)
    elif context is not None:
        texts = [context] if isinstance(context, str) else context
        result["contexts"] = _contexts(lm, texts, k, min_count, store, kind)
    else:
        if table == "output" and not lm.has_head:
            raise HeadlessError(f"{lm.place} has no LM head: choose --table input")
        queries, names = _queries(lm, tokens, analogy)
        rows = lm.neighbors(*queries, k=k, table=table, metric=metric, index=kind or "exact")
        found = [{"query": n, "neighbors": row} for n, row in zip(names, rows, strict=True)]
        result |= {"table": table, "metric": metric, "tokens": found}
    write_output(output, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _check_mode(words: dict[str, Any], texts: dict[str, Any], store: Path | None) -> None:
    """Refuse all but one thing to do; a store goes with texts."""
    modes = words | texts
    given = [name for name, value in modes.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise HeadlessError(f"give one of {', '.join(modes)}; got {got}")
    if given == ["--build_store"] and store is None:
        raise HeadlessError("name the store's directory with --store")
    if given[0] in words and store is not None:
        raise HeadlessError("--store goes with --context or --build_store")


def _queries(
    lm: LanguageModel, tokens: Any, analogy: list[str] | None
) -> tuple[list[Any], list[str]]:
    """What `LanguageModel.neighbors` is asked, and what it is called."""
    if analogy is None:
        ids = [lm.token_id(t) for t in (tokens if isinstance(tokens, list) else [tokens])]
        return ids, [repr(lm.text_of(i)) for i in ids]
    a, b, c = (lm.token_id(text) for text in analogy)
    return [[(a, 1.0), (b, -1.0), (c, 1.0)]], ["{!r} - {!r} + {!r}".format(*analogy)]


def _contexts(
    lm: LanguageModel,
    texts: list[str],
    k: int,
    min_count: int,
    place: Path | None,
    kind: Kind | None,
) -> list[dict[str, Any]]:
    if not lm.has_head and place is None:
        advice = ": name a --store of its hidden states for the nearest contexts"
        raise HeadlessError(
            f"{lm.place} has no LM head, so that no token is likely in a context"
            + (advice if lm.task == "causal" else "")
        )
    store = None if place is None else stores.open_store(place, lm)
    index = None if store is None else store.index(kind)
    records = []
    for text in texts:
        view = view_context(lm, text, k, min_count=min_count)
        record = {"context": text, "likeliest": view.likeliest, "specific": view.specific}
        if store is not None and index is not None:
            record["contexts"] = nearest_contexts(lm, store, index, view.hidden_D, k)
        records.append(record)
    return records
