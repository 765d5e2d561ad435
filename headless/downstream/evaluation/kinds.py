"""What each kind of task measures, with the definitions of lm-evaluation-harness.

Standard errors are closed forms over the items, no resampling.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import torch
import transformers

import headless
from headless.downstream.evaluation.likelihood import (
    Progress,
    Row,
    Score,
    continuation_row,
    encode_pair,
    masked_rows,
    plain_ids,
    prefix_token,
    rolling_rows,
    score_rows,
)
from headless.downstream.evaluation.tasks import MASKED_KINDS, Item, Items, Task
from headless.downstream.language_model import LanguageModel
from headless.downstream.tokenizers import longest_input
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


class Part(NamedTuple):
    """Rows whose scores make one text's, and whether its context was cut to fit."""

    rows: list[Row]
    cut: bool = False


Scored = list[tuple[Item, list[list[Score]]]]  # items with the scores of the rows of each part


@dataclass(frozen=True)
class Reader:
    """How a model reads items: `max_length` tokens at a time, `stride` new ones a window."""

    lm: LanguageModel
    max_length: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.max_length:
            raise HeadlessError(
                f"stride must be in 1 to max_length {self.max_length}, got {self.stride}"
            )

    def windows(self, text: str) -> Part:
        """Each token of a document once, from the prefix token on."""
        tokenizer = self.lm.tokenizer
        ids = [prefix_token(tokenizer), *plain_ids(tokenizer, text)]
        return Part(list(rolling_rows(ids, self.max_length, self.stride)))

    def after(self, context: str, text: str) -> Part | None:
        """A text after its context and a blank; None where it has no token or does not fit."""
        ids = encode_pair(self.lm.tokenizer, context, f" {text}")
        if (fitting := continuation_row(*ids, self.max_length)) is None:
            return None
        return Part([fitting[0]], fitting[1])

    def sentence(self, text: str) -> Part | None:
        """A sentence by itself; None where it has no token or does not fit.

        A causal model reads it after the prefix token and a blank, as in lm-evaluation-harness; a
        masked one is asked for each token in turn with that token masked (pseudo-log-likelihood,
        Salazar et al. 2020).
        """
        if self.lm.task != "masked":
            return self.after("", text)
        if self.lm.tokenizer.mask_token_id is None:
            raise HeadlessError(f"the tokenizer of {self.lm.place} has no mask token")
        framed = self.lm.head == "own"  # our runs read streams
        rows = masked_rows(self.lm.tokenizer, text, self.max_length, framed=framed)
        return None if rows is None else Part(rows)


class Outcome(NamedTuple):
    """Fields of `Evaluation`."""

    metrics: dict[str, Measured]
    subsets: dict[str, dict[str, float]] = {}
    settings: dict[str, Any] = {}


def text_outcome(reader: Reader, scored: Scored) -> Outcome:
    """`nll` (nats a token), `perplexity`, `bits_per_byte`, `byte_` and `word_perplexity`.

    The special tokens that some tokenizers add are not predicted (the harness does). Bytes are
    those of the UTF-8 text, words what blanks separate. Standard errors take documents as
    independent, or windows where there are few documents. The setting `inexact_share` is the share
    of the bytes in documents that their tokens do not give back.
    """
    tokenizer, texts = reader.lm.tokenizer, [item["text"] for item, _ in scored]
    sizes = [len(text.encode("utf-8")) for text in texts]
    inexact = sum(
        size
        for text, size in zip(texts, sizes, strict=True)
        if tokenizer.decode(plain_ids(tokenizer, text), clean_up_tokenization_spaces=False) != text
    )
    unit, units = "documents", [windows for _, (windows,) in scored]
    if len(texts) < FEW_DOCUMENTS:
        unit, units = "windows", [[window] for windows in units for window in windows]
    nats = [-math.fsum(window.log_likelihood for window in windows) for windows in units]
    tokens = [sum(window.tokens for window in windows) for windows in units]
    nll, count, size = ratio(nats, tokens), sum(tokens), sum(sizes)
    words = sum(len(re.split(r"\s+", text)) for text in texts)  # as lm-evaluation-harness
    return Outcome(
        {
            "nll": nll,
            "perplexity": nll.exponential(),
            "bits_per_byte": nll.scaled(count / size / math.log(2)),
            "byte_perplexity": nll.scaled(count / size).exponential(),
            "word_perplexity": nll.scaled(count / words).exponential(),
        },
        settings={
            "stride": reader.stride,
            "tokens": count,
            "bytes": size,
            "inexact_share": inexact / size,
            "words": words,
            "error_over": unit,
        },
    )


def last_word_outcome(reader: Reader, scored: Scored) -> Outcome:
    """`accuracy` (every token of the word is the likeliest) and `perplexity` (of whole words)."""
    scores = [score for _, ((score,),) in scored]
    return Outcome(
        {
            "accuracy": mean([float(score.greedy) for score in scores]),
            "perplexity": mean([-score.log_likelihood for score in scores]).exponential(),
        }
    )


def pair_outcome(reader: Reader, scored: Scored) -> Outcome:
    """`accuracy`: share of pairs whose good sentence has the greater summed log-likelihood.

    A tie counts as wrong.
    """
    by_subset: dict[str, list[float]] = {}
    for pair, parts in scored:
        good, bad = (math.fsum(score.log_likelihood for score in part) for part in parts)
        by_subset.setdefault(pair["subset"], []).append(float(good > bad))
    subsets: dict[str, dict[str, float]] = {}
    for subset, correct in sorted(by_subset.items()) if len(by_subset) > 1 else ():
        accuracy = mean(correct)
        subsets[subset] = {"items": len(correct), "accuracy": accuracy.value}
        if accuracy.error is not None:
            subsets[subset]["accuracy_error"] = accuracy.error
    score = "pseudo-log-likelihood" if reader.lm.task == "masked" else "log-likelihood"
    every = [value for correct in by_subset.values() for value in correct]
    return Outcome({"accuracy": mean(every)}, subsets, {"score": score})


CHOICE_LENGTHS: dict[str, Callable[[str], int]] = {
    "accuracy": lambda choice: 1,
    "accuracy_norm": len,
    "accuracy_bytes": lambda choice: len(choice.encode("utf-8")),
}


def choice_outcome(reader: Reader, scored: Scored) -> Outcome:
    """`accuracy`, and the same of log-likelihoods per character and per byte of the answer.

    Of equal ones the first counts. `accuracy_norm` (characters) is what lm-evaluation-harness calls
    acc_norm.
    """
    metrics = {}
    for name, length in CHOICE_LENGTHS.items():
        correct = []
        for question, parts in scored:
            pairs = zip(parts, question["choices"], strict=True)
            values = [score.log_likelihood / length(choice) for (score,), choice in pairs]
            correct.append(float(values.index(max(values)) == question["gold"]))
        metrics[name] = mean(correct)
    return Outcome(metrics)


class Kind(NamedTuple):
    """The texts of an item that are scored, and what the scores say."""

    parts: Callable[[Reader, Item], list[Part | None]]
    outcome: Callable[[Reader, Scored], Outcome]


KINDS = {
    "text": Kind(lambda reader, item: [reader.windows(item["text"])], text_outcome),
    "lambada": Kind(
        lambda reader, item: [reader.after(item["context"], item["word"])], last_word_outcome
    ),
    "blimp": Kind(
        lambda reader, item: [reader.sentence(item[name]) for name in ("good", "bad")], pair_outcome
    ),
    "choice": Kind(
        lambda reader, item: [reader.after(item["query"], c) for c in item["choices"]],
        choice_outcome,
    ),
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
    reader = Reader(lm, max_length, max_length if stride is None else stride)
    kind = KINDS[items.task.kind]
    read: list[tuple[Item, list[Part]]] = []
    for item in items.items:
        parts = kind.parts(reader, item)
        fitting = [part for part in parts if part is not None]
        if len(fitting) == len(parts):
            read.append((item, fitting))
    rows = [row for _, parts in read for part in parts for row in part.rows]
    if not rows:
        raise HeadlessError(
            f"none of the {len(items.items)} items fits into the {max_length} tokens that "
            f"{lm.place} reads at a time"
        )
    scores = iter(score_rows(lm.model, rows, batch_size=batch_size, progress=progress))
    scored = [(item, [[next(scores) for _ in part.rows] for part in parts]) for item, parts in read]
    outcome = kind.outcome(reader, scored)
    return Evaluation(
        task=str(items.task),
        kind=items.task.kind,
        source=items.task.name,
        data_sha256=items.sha256,
        metrics={name: m.value for name, m in outcome.metrics.items()},
        errors={name: m.error for name, m in outcome.metrics.items() if m.error is not None},
        items=len(read),
        skipped=items.skipped + len(items.items) - len(read),
        truncated=sum(any(part.cut for part in parts) for _, parts in read),
        subsets=outcome.subsets,
        settings={"max_length": max_length, **outcome.settings},
        **facts(lm, begin),
    )


def check_kinds(lm: LanguageModel, tasks: Sequence[Task]) -> None:
    """Refuse tasks that need a causal model where the model is a masked one, or text without a
    tokenizer."""
    if any(task.kind != "catalogue" for task in tasks):
        lm.check_tokenizer()
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
