"""A model that is asked for log-likelihoods of text, with the options of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from headless.downstream.evaluation.encoding import continuation_row, encode_pair, longest_input
from headless.downstream.evaluation.likelihood import Progress, Row, Score, score_rows
from headless.downstream.language_model import LanguageModel


@dataclass(frozen=True)
class Options:
    """How to score: rows at a time, tokens of context, tokens that a window adds (None: all)."""

    batch_size: int = 32
    max_length: int | None = None
    stride: int | None = None


class Scorer:
    """A model with its options: rows to scores, and what its texts are cut to."""

    def __init__(self, loaded: LanguageModel, options: Options, progress: Progress) -> None:
        self.loaded = loaded
        self.tokenizer = loaded.tokenizer
        self.options = options
        self.progress = progress
        self.max_length = longest_input(loaded.model, self.tokenizer, options.max_length)

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """See `score_rows`."""
        size = self.options.batch_size
        return score_rows(self.loaded.model, rows, batch_size=size, progress=self.progress)

    def continuations(
        self, items: Sequence[Sequence[tuple[str, str]]]
    ) -> list[tuple[list[Score], bool] | None]:
        """Scores of each item's (context, continuation) pairs, and whether a context was cut.

        None for an item of which a continuation has no token or does not fit.
        """
        found = [
            [
                continuation_row(*encode_pair(self.tokenizer, *pair), self.max_length)
                for pair in pairs
            ]
            for pairs in items
        ]
        usable = [[row for row in rows if row is not None] for rows in found]
        kept = [len(known) == len(rows) for known, rows in zip(usable, found, strict=True)]
        rows = [row for known, k in zip(usable, kept, strict=True) if k for row, _ in known]
        scores = iter(self.scores(rows))
        return [
            ([next(scores) for _ in known], any(cut for _, cut in known)) if k else None
            for known, k in zip(usable, kept, strict=True)
        ]
