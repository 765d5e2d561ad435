"""What is looked at, and what was measured of it so far."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.courses import Checkpoints, Courses
from headless.analysis.states.capture import (
    INNER,
    Point,
    final_point,
    inner_points_of,
    points_of,
)
from headless.analysis.states.families import backbone_of
from headless.analysis.states.measure import measure
from headless.errors import HeadlessError
from headless.models.backbone import blocks as blocks_of
from headless.models.backbone import embedding_table, is_causal
from headless.progress import Report

T = TypeVar("T")
Preset = Literal["cheap", "full"]
STREAM = ("embed", "post", "norm_f")  # the components that the cheap preset looks at
SPECTRA = ("embed", "attn", "mlp", "post", "norm_f")  # those whose covariances are kept
LONGEST = 512  # tokens of a sequence, where nothing else is asked for
TABLE_ROWS = 2**18  # of larger tables evenly spaced rows are looked at, about as many
NO_HEAD = "the model has none: no logits and no loss"


@dataclass(frozen=True)
class Subject:
    """What is looked at; what is None is not known."""

    name: str  #: for titles
    model: Any  #: with a head or without; of a family in `headless.analysis.states.families`
    sequences_NT: Tensor | None = None  #: token ids of a text; None: weights alone
    counts_V: Tensor | None = None  #: of tokens in the training text
    tokens: np.ndarray | None = None  #: of the training text, for its own spectrum
    initial: nn.Module | None = None  #: the backbone before training
    mask_token: int | None = None  #: of a masked model
    bos: int | None = None  #: the token before a document
    data: Path | None = None  #: the dataset that the text is from
    beginning: str = ""  #: where `initial` is from, or why it is not known
    shown: nn.Module | None = None  #: the backbone to look at, where the model's is in shards
    has_head: bool = True  #: whether the model makes logits
    why_no_head: str = NO_HEAD

    @property
    def backbone(self) -> nn.Module:
        """The part without the head, to run it."""
        return backbone_of(self.model)

    @property
    def weights(self) -> nn.Module:
        """The same, to look at its weights."""
        return self.backbone if self.shown is None else self.shown

    @property
    def no_loss(self) -> str:
        """Why the model has no loss; empty where it has one."""
        if not self.has_head:
            return "without an LM head no loss is known"
        if self.mask_token is None and not is_causal(self.backbone):
            return "the tokenizer of the masked model has no mask token, so that no loss is known"
        return ""

    @property
    def head_VD(self) -> Tensor | None:  # noqa: N802 - the shape is part of the name
        """The head's matrix, where it has one that is not the embedding table."""
        linear = self.model.get_output_embeddings() if self.has_head else None
        weight = None if linear is None else linear.weight.detach()
        table = embedding_table(self.weights)
        return None if weight is None or weight is table or torch.equal(weight, table) else weight


@dataclass
class Session:
    """A subject with what was measured of it, once and when it is first needed."""

    subject: Subject
    seed: int = 0  #: of samples and null models
    report: Report = lambda what, done, total: None
    preset: Preset = "full"  #: "cheap" measures the residual stream alone, without histograms
    spread: bool = True  #: in a group of processes all measure; otherwise this one does, alone
    umap: bool = False  #: lay states out by UMAP as well
    blocks: Sequence[int] | None = None  #: whose states are looked at; None: those of all
    last_alone: bool = False  #: measure no states but what the head reads: nothing asks for more
    claims_only: bool = False  #: leave out what no claim is made of
    courses: Courses | None = None  #: the numbers over training; None: not known
    checkpoints: Checkpoints | None = None  #: of the same run, to compare the states with
    #: of the text, once they are known: shared by the models that read it
    text_spectra: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    _statistics: dict[Point, Any] | None = field(default=None, repr=False)
    _shared: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What several analyses share, made when it is first asked for."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    @property
    def is_causal(self) -> bool:
        """Whether a state depends on what comes before alone."""
        return is_causal(self.subject.backbone)

    @property
    def statistics(self) -> dict[Point, Any]:
        """Of every point of the stream's width, over all sequences."""
        return {point: s for point, s in self._measured().items() if point.component not in INNER}

    @property
    def inner(self) -> dict[Point, Any]:
        """Of the points inside attention and MLP, which have widths of their own."""
        return {point: s for point, s in self._measured().items() if point.component in INNER}

    def _measured(self) -> dict[Point, Any]:
        if self._statistics is None:
            self._statistics = measure(
                self.subject.model,
                self.batches(),
                **self._wanted(),
                progress=lambda done: self.report("states", done, self.sequences.numel()),
                spread=self.spread,
            )
        return self._statistics

    def _wanted(self) -> dict[str, Any]:
        """What is measured where; the cheap preset's is what the full one measures there."""
        points = points_of(self.subject.model)
        if self.last_alone:
            last = final_point(points)
            return {"points": [last], "by_position": (), "histogram": False}
        if self.preset == "cheap":
            stream = [p for p in points if p.component in STREAM]
            return {"points": self._chosen(stream), "by_position": (), "histogram": False}
        every = [*points, *inner_points_of(self.subject.model)]
        return {
            "points": self._chosen(every),
            # What no analysis follows closely: a quarter of the text tells as much.
            "sparse": [p for p in every if p.component not in SPECTRA],
            "by_position": [p for p in points if p.component == "post"],
            # The dearest sums: where spectra are drawn. Elsewhere the reservoir does.
            "covariance": [p for p in points if p.component in SPECTRA],
        }

    def _chosen(self, points: Sequence[Point]) -> list[Point]:
        ends, blocks = ("embed", "norm_f"), self.blocks
        return [p for p in points if blocks is None or p.component in ends or p.block in blocks]

    @property
    def sequences(self) -> Tensor:
        """The text."""
        assert self.subject.sequences_NT is not None
        return self.subject.sequences_NT

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.subject.backbone.parameters()).device

    def batches(self, size: int = 8) -> Iterator[Tensor]:
        """The text in batches, on the model's device."""
        yield from (part.to(self.device) for part in self.sequences.split(size))

    def sample(self, component: str) -> Tensor:
        """The reservoir of the last point of a component."""
        points = [point for point in self.statistics if point.component == component]
        if not points:
            raise HeadlessError(f"the model has no {component}")
        return self.statistics[points[-1]].sample_KD

    @property
    def last_states(self) -> Tensor:
        """What the head sees."""
        has_norm = any(point.component == "norm_f" for point in self.statistics)
        return self.sample("norm_f" if has_norm else "post")

    @property
    def whole_tables(self) -> dict[str, Tensor]:
        """Embeddings and, where it is another, the head: a row for each token."""
        table = {"embedding": embedding_table(self.subject.weights).detach()}
        head = self.subject.head_VD
        return table if head is None else table | {"head": head}

    @property
    def table_rows(self) -> slice:
        """Which rows of them are looked at: all, of a large vocabulary every so many."""
        return rows_of(embedding_table(self.subject.weights))

    @property
    def tables(self) -> dict[str, Tensor]:
        """Those rows."""
        rows = self.table_rows
        return {name: table_VD[rows] for name, table_VD in self.whole_tables.items()}


def rows_of(table_VD: Tensor) -> slice:
    """Every row of a table, or of a large one every so many."""
    return slice(None, None, -(-len(table_VD) // TABLE_ROWS))


def check_blocks(backbone: nn.Module, blocks: Sequence[int] | None) -> None:
    """Whether a model has these blocks.

    Raises:
        HeadlessError: it has not.
    """
    depth = len(blocks_of(backbone))
    if blocks is not None and not (blocks and all(0 <= block < depth for block in blocks)):
        raise HeadlessError(
            f"the model has blocks 0 to {depth - 1}: name some of them, as [0, {depth - 1}]"
        )


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
