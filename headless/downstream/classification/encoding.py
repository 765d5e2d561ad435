"""Sentences and pairs as token ids, and as batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from headless.data.tokenizer import end_of_document
from headless.errors import HeadlessError

Batch = dict[str, Tensor]
SHORTEST = 4  # tokens: an end of document, one of each text and one between them
POOL_BATCHES = 50  # of which the lengths are sorted together


@dataclass(frozen=True)
class TextEncoder:
    """Turns texts into ids as the model saw text before.

    A tokenizer that has a template of its own (BERT's `[CLS] a [SEP] b [SEP]`) uses it. Otherwise
    the end-of-document token, which stood before every document of the training text, stands
    before the first text and before the second one.

    Args:
        tokenizer: a fast one.
        max_length: the most tokens; longer pairs lose tokens at the end of the longer text.
        segments: whether the model tells the texts of a pair apart by `token_type_ids`.
    """

    tokenizer: Any
    max_length: int
    segments: bool = False

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer adds special tokens by itself."""
        return bool(self.tokenizer("a").input_ids != self._plain(["a"])[0])

    def __call__(self, texts: list[str], pairs: list[str] | None) -> tuple[list[Any], int]:
        """One `{"input_ids": [...], ...}` an example, and how many were cut."""
        if self.has_template:
            return self._with_template(texts, pairs)
        first = self._plain(texts)
        second: Sequence[list[int] | None] = [None] * len(texts)
        if pairs is not None:
            second = self._plain(pairs)
        end = end_of_document(self.tokenizer)
        encoded, cut = [], 0
        for a, b in zip(first, second, strict=True):
            room = self.max_length - (1 if b is None else 2)
            cut += len(a) + len(b or ()) > room
            a, b = _shorten(a, b, room)
            encoded.append({"input_ids": [end, *a] if b is None else [end, *a, end, *b]})
        return encoded, cut

    def _plain(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids

    def _with_template(self, texts: list[str], pairs: list[str] | None) -> tuple[list[Any], int]:
        whole = self.tokenizer(texts, pairs, verbose=False).input_ids
        short = self.tokenizer(
            texts,
            pairs,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=self.segments,
        )
        keys = ["input_ids", *(["token_type_ids"] if self.segments else [])]
        encoded = [{key: short[key][i] for key in keys} for i in range(len(texts))]
        return encoded, sum(len(ids) > self.max_length for ids in whole)


def _shorten(a: list[int], b: list[int] | None, room: int) -> tuple[list[int], list[int] | None]:
    """Take tokens from the end of the longer one until both fit."""
    if b is None:
        return a[:room], None
    keep = min(len(a), max(room - len(b), room - room // 2))
    return a[:keep], b[: room - keep]


def text_length(backbone: Any, tokenizer: Any, max_length: int | None) -> int:
    """The most tokens of an example.

    Raises:
        HeadlessError: more were asked for than the model has positions, or too few.
    """
    positions = getattr(backbone.config, "max_position_embeddings", None) or 10**9
    limit = min(int(positions), int(min(tokenizer.model_max_length, 10**9)))
    if max_length is None:
        return min(limit, 512) if limit == 10**9 else limit
    if max_length > limit:
        raise HeadlessError(f"max_length {max_length} is more than the model's {limit} positions")
    if max_length < SHORTEST:
        raise HeadlessError(f"max_length must be at least {SHORTEST}, got {max_length}")
    return max_length


def collate(examples: Sequence[dict[str, Any]], pad_token_id: int) -> Batch:
    """Pad at the right to the longest example: `input_ids`, `attention_mask` [B, T], `labels` [B].

    Rows that were pooled already (`"pooled"`, [D]) are stacked.
    """
    labels = torch.tensor([example["label"] for example in examples])
    if "pooled" in examples[0]:
        return {"pooled": torch.stack([e["pooled"] for e in examples]), "labels": labels}
    longest = max(len(example["input_ids"]) for example in examples)
    batch = {"labels": labels}
    for key in examples[0].keys() - {"label"}:
        fill = pad_token_id if key == "input_ids" else 0
        rows = [e[key] + [fill] * (longest - len(e[key])) for e in examples]
        batch[key] = torch.tensor(rows)
    lengths = torch.tensor([len(example["input_ids"]) for example in examples])
    batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
    return batch


class LengthBatches(Sampler[list[int]]):
    """Batches of examples of like lengths, in a random order: another one each time it is asked.

    Args:
        lengths: of all examples, in tokens.
        batch_size: examples a batch; the last one may be smaller.
        seed: of the orders; None: one fixed order by length, for scoring.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int | None) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.generator is None:
            order = torch.argsort(self.lengths, stable=True)
            yield from (part.tolist() for part in order.split(self.batch_size))
            return
        order = torch.randperm(len(self.lengths), generator=self.generator)
        batches: list[list[int]] = []
        for pool in order.split(POOL_BATCHES * self.batch_size):
            pool = pool[torch.argsort(self.lengths[pool], stable=True)]
            batches += [part.tolist() for part in pool.split(self.batch_size)]
        for place in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[place]
