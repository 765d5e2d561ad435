"""The text on which a model is looked at, and what a page says about both."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headless.analysis.session import Subject
from headless.errors import HeadlessError

LONGEST = 512  # tokens of a sequence, where nothing else is asked for


def length_for(backbone: Any, trained: int = LONGEST) -> int:
    """As long as the model was trained with or has positions for, `LONGEST` at the most."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or trained
    return min(trained, positions, LONGEST)


def take_text(
    subject: Subject,
    dataset: Any,
    place: str | Path,
    *,
    tokens: int,
    length: int,
    split: str = "validation",
) -> Subject:
    """A subject with a text: sequences that lie evenly over a split, and the training tokens.

    Args:
        subject: without one.
        dataset: of `headless.data.stream.open_dataset`.
        place: where it lies.
        tokens: at most so many, in whole sequences.
        length: of a sequence.
        split: of the dataset.

    Raises:
        HeadlessError: the split holds no two such sequences.
    """
    stream = np.asarray(dataset.split(split).tokens)
    number = min(len(stream), tokens) // length
    if number < 2:
        raise HeadlessError(
            f"the {split} split of {place} holds no two sequences of {length} tokens"
        )
    # Evenly over the text, so that a short look sees all of it.
    starts = np.linspace(0, len(stream) - length, number).astype(int)
    rows = np.stack([stream[begin : begin + length] for begin in starts])
    return replace(
        subject,
        sequences_NT=torch.from_numpy(rows.astype(np.int64)),
        tokens=np.asarray(dataset.split("train").tokens),
        data=Path(place),
        counts_V=dataset.unigram_counts if subject.counts_V is None else subject.counts_V,
    )


def about(place: str | Path, subject: Subject, left_out: Mapping[str, str]) -> list[Any]:
    """What a reader of the page must know: terms and texts."""
    config: Any = subject.backbone.config
    found = [
        ("model", str(place)),
        ("backbone", f"{config.model_type} {config.num_hidden_layers} x {config.hidden_size}"),
    ]
    if subject.sequences_NT is not None:
        number, length = subject.sequences_NT.shape
        found.append(("text", f"{subject.data}, {number:,} sequences of {length} tokens"))
    found += [("before training", subject.beginning)] if subject.beginning else []
    return [*found, *((name, f"left out: {reason}") for name, reason in left_out.items())]
