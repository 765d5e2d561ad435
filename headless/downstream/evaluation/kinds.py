"""What each kind of task measures, with the definitions of lm-evaluation-harness.

Standard errors are closed forms over the items, no resampling.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import torch
import transformers

import headless
from headless.downstream.evaluation.encoding import (
    continuation_row,
    encode_pair,
    longest_input,
    masked_rows,
    plain_ids,
    prefix_token,
    rolling_rows,
)
from headless.downstream.evaluation.likelihood import Progress, Row, Score, score_rows
from headless.downstream.evaluation.tasks import MASKED_KINDS, Item, Items, Task
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError
from headless.runs.evaluations import Evaluation

FEW_DOCUMENTS = 10  # fewer say nothing about their spread: windows are the units then


class Measured(NamedTuple):
    """A number and its standard error over the items; None where there are too few to know."""

    value: float
    error: float | None

    def scaled(self, factor: float) -> "Measured":
        """Times a constant."""
        error = None if self.error is None else abs(factor) * self.error
        return Measured(factor * self.value, error)

    def exponential(self) -> "Measured":
        """exp(value); the error by the delta method. Infinite where float64 ends."""
        value = math.exp(self.value) if self.value < 700 else math.inf
        return Measured(value, None if self.error is None else value * self.error)


def mean(values: Sequence[float]) -> Measured:
    """The mean; its error is the sample's deviation (n - 1) over √n: binomial for 0 and 1."""
    return ratio(values, [1.0] * len(values))


def ratio(totals: Sequence[float], counts: Sequence[float]) -> Measured:
    """sum(totals) / sum(counts) over units of different size.

    The error is that of the ratio estimator (Cochran, Sampling Techniques, 1977, 2.11):
    √(n / (n - 1) · Σ (total - ratio · count)²) / Σ count, where the units are independent.
    """
    n, count = len(totals), math.fsum(counts)
    value = math.fsum(totals) / count
    if n < 2:
        return Measured(value, None)
    squares = math.fsum((t - value * c) ** 2 for t, c in zip(totals, counts, strict=True))
    return Measured(value, math.sqrt(n / (n - 1) * squares) / count)


@dataclass
class Scorer:
    """A model, and how it scores: tokens that it reads, and that a window adds (None: as many)."""

    lm: LanguageModel
    batch_size: int
    max_length: int
    stride: int | None
    progress: Progress

    def __post_init__(self) -> None:
        self.tokenizer = self.lm.tokenizer

    def grouped(self, groups: Sequence[Sequence[Row] | None]) -> list[list[Score] | None]:
        """Scores of the rows of each item; None for an item without rows."""
        rows = [row for group in groups for row in group or ()]
        scores = iter(
            score_rows(self.lm.model, rows, batch_size=self.batch_size, progress=self.progress)
        )
        return [group if group is None else [next(scores) for _ in group] for group in groups]

    def continuations(
        self, items: Sequence[Sequence[tuple[str, str]]]
    ) -> tuple[list[list[Score] | None], int]:
        """Scores of each item's (context, continuation) pairs, and how many contexts were cut.

        None for an item of which a continuation has no token or does not fit.
        """
        groups: list[list[Row] | None] = []
        truncated = 0
        for pairs in items:
            rows = [
                continuation_row(*encode_pair(self.tokenizer, *pair), self.max_length)
                for pair in pairs
            ]
            usable = [row for row in rows if row is not None]
            fits = len(usable) == len(rows)
            groups.append([row for row, _ in usable] if fits else None)
            truncated += fits and any(cut for _, cut in usable)
        return self.grouped(groups), truncated

    def sentence(self, text: str) -> list[Row] | None:
        """The rows whose scores make a sentence's; None where it does not fit."""
        if self.lm.task == "masked":
            framed = self.lm.head == "own"  # our runs read streams
            return masked_rows(self.tokenizer, text, self.max_length, framed=framed)
        ids = encode_pair(self.tokenizer, "", f" {text}")
        fitting = continuation_row(*ids, self.max_length)
        return fitting and [fitting[0]]

    def count_skipped(self, scored: Sequence[Any], items: Sequence[Any]) -> int:
        """How many items were not scored; refuses where none was."""
        if not scored:
            raise HeadlessError(
                f"none of the {len(items)} items fits into the {self.max_length} tokens that "
                f"{self.lm.place} reads at a time"
            )
        return len(items) - len(scored)


@dataclass
class Outcome:
    """Fields of `Evaluation`."""

    metrics: dict[str, Measured]
    items: int
    skipped: int = 0
    truncated: int = 0
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def text_outcome(scorer: Scorer, documents: Sequence[Item]) -> Outcome:
    """`nll` (nats a token), `perplexity`, `bits_per_byte`, `byte_` and `word_perplexity`.

    Each document is predicted by itself from the prefix token on, each token once, in windows; the
    special tokens that some tokenizers add are not predicted (the harness does). Bytes are those of
    the UTF-8 text, words what blanks separate. Standard errors take documents as independent, or
    windows where there are few documents. The setting `inexact_share` is the share of the bytes in
    documents that their tokens do not give back.
    """
    stride = scorer.max_length if scorer.stride is None else scorer.stride
    if not 1 <= stride <= scorer.max_length:
        raise HeadlessError(f"stride must be in 1 to max_length {scorer.max_length}, got {stride}")
    texts, prefix = [document["text"] for document in documents], prefix_token(scorer.tokenizer)
    groups: list[list[Row]] = []
    inexact = 0
    for text in texts:
        ids = plain_ids(scorer.tokenizer, text)
        if scorer.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
            inexact += len(text.encode("utf-8"))
        groups.append(list(rolling_rows(ids, prefix, scorer.max_length, stride)))
    scorer.count_skipped([row for rows in groups for row in rows], texts)
    units: list[list[tuple[float, int]]] = [  # nats and tokens of the windows of each document
        [(-score.log_likelihood, len(row.targets)) for row, score in zip(rows, scores, strict=True)]
        for rows, scores in zip(groups, scorer.grouped(groups), strict=True)
        if scores is not None
    ]
    unit = "windows" if len(texts) < FEW_DOCUMENTS else "documents"
    if unit == "windows":
        units = [[window] for windows in units for window in windows]
    nats, tokens = ([math.fsum(w[i] for w in windows) for windows in units] for i in (0, 1))
    nll, count = ratio(nats, tokens), math.fsum(tokens)
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


def last_word_outcome(scorer: Scorer, items: Sequence[Item]) -> Outcome:
    """`accuracy` (every token of the word is the likeliest) and `perplexity` (of whole words)."""
    groups, cut = scorer.continuations([[(i["context"], f" {i['word']}")] for i in items])
    scores = [group[0] for group in groups if group is not None]
    skipped = scorer.count_skipped(scores, items)
    metrics = {
        "accuracy": mean([float(score.greedy) for score in scores]),
        "perplexity": mean([-score.log_likelihood for score in scores]).exponential(),
    }
    return Outcome(metrics, len(scores), skipped, cut)


def pair_outcome(scorer: Scorer, pairs: Sequence[Item]) -> Outcome:
    """`accuracy`: share of pairs whose good sentence has the greater summed log-likelihood.

    A causal model reads a sentence after the prefix token and a blank, as in
    lm-evaluation-harness; a masked one is asked for each token in turn with that token masked
    (pseudo-log-likelihood, Salazar et al. 2020). A tie counts as wrong.
    """
    masked = scorer.lm.task == "masked"
    if masked and scorer.tokenizer.mask_token_id is None:
        raise HeadlessError(f"the tokenizer of {scorer.lm.place} has no mask token")
    sentences = [[scorer.sentence(pair[name]) for name in ("good", "bad")] for pair in pairs]
    groups = scorer.grouped([r for s in sentences for r in (s if all(s) else (None, None))])
    totals = [
        None if group is None else math.fsum(score.log_likelihood for score in group)
        for group in groups
    ]
    correct = [
        (pair["subset"], float(good > bad))
        for pair, good, bad in zip(pairs, totals[::2], totals[1::2], strict=True)
        if good is not None and bad is not None
    ]
    skipped = scorer.count_skipped(correct, pairs)
    subsets: dict[str, dict[str, float]] = {}
    sizes = Counter(subset for subset, _ in correct)
    for subset in sorted(sizes) if len(sizes) > 1 else ():
        accuracy = mean([value for name, value in correct if name == subset])
        subsets[subset] = {"items": sizes[subset], "accuracy": accuracy.value}
        if accuracy.error is not None:
            subsets[subset]["accuracy_error"] = accuracy.error
    metrics = {"accuracy": mean([value for _, value in correct])}
    settings = {"score": "pseudo-log-likelihood" if masked else "log-likelihood"}
    return Outcome(metrics, len(correct), skipped, 0, subsets, settings)


CHOICE_LENGTHS: dict[str, Callable[[str], int]] = {
    "accuracy": lambda choice: 1,
    "accuracy_norm": len,
    "accuracy_bytes": lambda choice: len(choice.encode("utf-8")),
}


def choice_outcome(scorer: Scorer, questions: Sequence[Item]) -> Outcome:
    """`accuracy`, and the same of log-likelihoods per character and per byte of the answer.

    An answer follows its question and a blank; of equal ones the first counts.
    `accuracy_norm` (characters) is what lm-evaluation-harness calls acc_norm.
    """
    groups, cut = scorer.continuations(
        [[(q["query"], f" {c}") for c in q["choices"]] for q in questions]
    )
    scored = [(q, group) for q, group in zip(questions, groups, strict=True) if group is not None]
    skipped = scorer.count_skipped(scored, questions)
    metrics = {}
    for name, length in CHOICE_LENGTHS.items():
        correct = []
        for question, group in scored:
            pairs = zip(group, question["choices"], strict=True)
            values = [score.log_likelihood / length(choice) for score, choice in pairs]
            correct.append(float(values.index(max(values)) == question["gold"]))
        metrics[name] = mean(correct)
    return Outcome(metrics, len(scored), skipped, cut)


OUTCOMES: dict[str, Callable[[Scorer, Any], Outcome]] = {
    "text": text_outcome,
    "lambada": last_word_outcome,
    "blimp": pair_outcome,
    "choice": choice_outcome,
}


def evaluate_items(
    lm: LanguageModel,
    items: Items,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    stride: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a model on the items of a task; a text's windows add `stride` tokens each."""
    check_kinds(lm, [items.task])
    begin = time.perf_counter()
    max_length = longest_input(lm.model, lm.tokenizer, max_length)
    scorer = Scorer(lm, batch_size, max_length, stride, progress)
    outcome = OUTCOMES[items.task.kind](scorer, items.items)
    return Evaluation(
        task=str(items.task),
        kind=items.task.kind,
        source=items.task.name,
        data_sha256=items.sha256,
        metrics={name: m.value for name, m in outcome.metrics.items()},
        errors={name: m.error for name, m in outcome.metrics.items() if m.error is not None},
        items=outcome.items,
        skipped=items.skipped + outcome.skipped,
        truncated=outcome.truncated,
        subsets=outcome.subsets,
        settings={"max_length": max_length, **outcome.settings},
        **facts(lm, begin),
    )


def check_kinds(lm: LanguageModel, tasks: Sequence[Task]) -> None:
    """Refuse tasks that need a causal model where the model is a masked one."""
    wrong = [task.kind for task in tasks if task.kind not in MASKED_KINDS]
    if lm.task == "masked" and wrong:
        raise HeadlessError(
            f"{lm.place} is a masked language model, which gives no text a probability from "
            f"left to right: it can do {', '.join(MASKED_KINDS)}, not {wrong[0]}"
        )


def facts(lm: LanguageModel, begin: float, **versions: str) -> dict[str, Any]:
    """The fields of every `Evaluation` that say where it comes from."""
    return {
        "model": lm.name,
        "head": lm.head,
        "step": lm.step,
        "seconds": round(time.perf_counter() - begin, 3),
        "versions": {
            "headless": headless.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **versions,
        },
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
