"""What each kind of task measures, with the definitions of lm-evaluation-harness."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headless.downstream.evaluation.encoding import (
    masked_rows,
    prefix_token,
    rolling_windows,
    window_row,
)
from headless.downstream.evaluation.likelihood import Row
from headless.downstream.evaluation.scorer import Scorer
from headless.downstream.evaluation.statistics import Measured, mean, ratio
from headless.downstream.evaluation.tasks import Document, LastWord, Pair, Question
from headless.errors import HeadlessError

FEW_DOCUMENTS = 10  # fewer say nothing about their spread: windows are the units then


@dataclass
class Outcome:
    """What a kind found; see `Evaluation` for the fields."""

    metrics: dict[str, Measured]
    items: int
    skipped: int = 0
    truncated: int = 0
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def text_outcome(scorer: Scorer, documents: Sequence[Document]) -> Outcome:
    """`nll` (nats a token), `perplexity`, `bits_per_byte`, `byte_` and `word_perplexity`.

    Each document is predicted by itself from the prefix token on, each token once, in windows; the
    special tokens that some tokenizers add are no text and not predicted (the harness does). The
    number of bytes is that of the UTF-8 text, words are what blanks separate. Standard errors take
    documents as independent, or windows where there are few documents. The setting `inexact_share`
    is the share of the bytes in documents that their tokens do not give back.
    """
    stride = scorer.max_length if scorer.options.stride is None else scorer.options.stride
    if not 1 <= stride <= scorer.max_length:
        raise HeadlessError(f"stride must be in 1 to max_length {scorer.max_length}, got {stride}")
    prefix = prefix_token(scorer.tokenizer)
    rows: list[Row] = []
    owner: list[int] = []
    texts = [document.text for document in documents]
    inexact = 0
    for number, text in enumerate(texts):
        ids = scorer.tokenizer(text, verbose=False, add_special_tokens=False)["input_ids"]
        if scorer.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
            inexact += len(text.encode("utf-8"))
        for window in rolling_windows(len(ids), scorer.max_length, stride):
            rows.append(window_row(window, ids, prefix))
            owner.append(number)
    _need_some(rows, len(texts), scorer)
    nats = [-score.log_likelihood for score in scorer.scores(rows)]
    tokens = [float(len(row.targets)) for row in rows]
    unit = "windows" if len(texts) < FEW_DOCUMENTS else "documents"
    if unit == "documents":
        nll = ratio(_sums(nats, owner, len(texts)), _sums(tokens, owner, len(texts)))
    else:
        nll = ratio(nats, tokens)
    count = math.fsum(tokens)
    size = sum(len(text.encode("utf-8")) for text in texts)
    words = sum(len(re.split(r"\s+", text)) for text in texts)  # as lm-evaluation-harness
    return Outcome(
        {
            "nll": nll,
            "perplexity": nll.exponential(),
            "bits_per_byte": nll.scaled(count / size / math.log(2)),
            "byte_perplexity": nll.scaled(count / size).exponential(),
            "word_perplexity": nll.scaled(count / words).exponential(),
        },
        items=len(texts),
        settings={
            "stride": stride,
            "tokens": int(count),
            "bytes": size,
            "inexact_share": inexact / size,
            "words": words,
            "error_over": unit,
        },
    )


def last_word_outcome(scorer: Scorer, items: Sequence[LastWord]) -> Outcome:
    """`accuracy` (every token of the word is the likeliest) and `perplexity` of the word.

    Perplexity is exp of the mean over the items of the whole word's negative log-likelihood.
    """
    found = scorer.continuations([[(item.context, f" {item.word}")] for item in items])
    scores = [one for one in found if one is not None]
    _need_some(scores, len(items), scorer)
    return Outcome(
        {
            "accuracy": mean([float(score.greedy) for (score,), _ in scores]),
            "perplexity": mean([-score.log_likelihood for (score,), _ in scores]).exponential(),
        },
        items=len(scores),
        skipped=len(items) - len(scores),
        truncated=sum(cut for _, cut in scores),
    )


def pair_outcome(scorer: Scorer, pairs: Sequence[Pair]) -> Outcome:
    """`accuracy`: share of pairs whose good sentence has the greater summed log-likelihood.

    A causal model reads a sentence after the prefix token and a blank, as in
    lm-evaluation-harness; a masked one is asked for each token in turn with that token masked
    (pseudo-log-likelihood, Salazar et al. 2020). A tie counts as wrong.
    """
    masked = scorer.loaded.task == "masked"
    totals = _masked_totals(scorer, pairs) if masked else _causal_totals(scorer, pairs)
    right = [
        (pair.subset, float(good > bad))
        for pair, (good, bad) in zip(pairs, totals, strict=True)
        if good is not None and bad is not None
    ]
    _need_some(right, len(pairs), scorer)
    subsets: dict[str, dict[str, float]] = {}
    sizes = Counter(subset for subset, _ in right)
    for subset in sorted(sizes) if len(sizes) > 1 else ():
        part = mean([value for name, value in right if name == subset])
        subsets[subset] = {"items": sizes[subset], "accuracy": part.value}
        if part.error is not None:
            subsets[subset]["accuracy_error"] = part.error
    return Outcome(
        {"accuracy": mean([value for _, value in right])},
        items=len(right),
        skipped=len(pairs) - len(right),
        subsets=subsets,
        settings={"score": "pseudo-log-likelihood" if masked else "log-likelihood"},
    )


def _causal_totals(
    scorer: Scorer, pairs: Sequence[Pair]
) -> list[tuple[float, float] | tuple[None, None]]:
    found = scorer.continuations([[("", f" {p.good}"), ("", f" {p.bad}")] for p in pairs])
    return [
        (None, None) if one is None else (one[0][0].log_likelihood, one[0][1].log_likelihood)
        for one in found
    ]


def _masked_totals(
    scorer: Scorer, pairs: Sequence[Pair]
) -> list[tuple[float, float] | tuple[None, None]]:
    if scorer.tokenizer.mask_token_id is None:
        raise HeadlessError(f"the tokenizer of {scorer.loaded.place} has no mask token")
    framed = scorer.loaded.head == "own"  # a run of ours saw the stream of its data set
    both = [
        [
            masked_rows(scorer.tokenizer, text, scorer.max_length, framed=framed)
            for text in (pair.good, pair.bad)
        ]
        for pair in pairs
    ]
    rows = [row for two in both if None not in two for one in two for row in one or ()]
    scores = iter(scorer.scores(rows))
    totals: list[tuple[float, float] | tuple[None, None]] = []
    for good, bad in both:
        if good is None or bad is None:
            totals.append((None, None))
        else:
            one, other = (
                math.fsum(next(scores).log_likelihood for _ in rows) for rows in (good, bad)
            )
            totals.append((one, other))
    return totals


def choice_outcome(scorer: Scorer, questions: Sequence[Question]) -> Outcome:
    """`accuracy`, and the same of log-likelihoods per character and per byte of the answer.

    An answer follows its question and a blank; of equal ones the first counts.
    `accuracy_norm` (characters) is what lm-evaluation-harness calls acc_norm.
    """
    found = scorer.continuations([[(q.query, f" {c}") for c in q.choices] for q in questions])
    right: dict[str, list[float]] = {name: [] for name in LENGTHS}
    truncated = 0
    for question, one in zip(questions, found, strict=True):
        if one is None:
            continue
        truncated += one[1]
        for name, length in LENGTHS.items():
            values = [
                score.log_likelihood / length(choice)
                for score, choice in zip(one[0], question.choices, strict=True)
            ]
            right[name].append(float(values.index(max(values)) == question.gold))
    _need_some(right["accuracy"], len(questions), scorer)
    return Outcome(
        {name: mean(values) for name, values in right.items()},
        items=len(right["accuracy"]),
        skipped=len(questions) - len(right["accuracy"]),
        truncated=truncated,
    )


LENGTHS: dict[str, Callable[[str], int]] = {
    "accuracy": lambda choice: 1,
    "accuracy_norm": len,
    "accuracy_bytes": lambda choice: len(choice.encode("utf-8")),
}
OUTCOMES: dict[str, Callable[[Scorer, Any], Outcome]] = {
    "text": text_outcome,
    "lambada": last_word_outcome,
    "blimp": pair_outcome,
    "choice": choice_outcome,
}


def _need_some(scored: Sequence[Any], items: int, scorer: Scorer) -> None:
    if not scored:
        raise HeadlessError(
            f"none of the {items} items fits into the {scorer.max_length} tokens that "
            f"{scorer.loaded.place} reads at a time"
        )


def _sums(values: Sequence[float], owner: Sequence[int], number: int) -> list[float]:
    sums = [0.0] * number
    for value, place in zip(values, owner, strict=True):
        sums[place] += value
    return sums
