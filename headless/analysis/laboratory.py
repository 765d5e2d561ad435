"""Everything at once: which analyses there are, what each needs, and one pass for all of them.

The states of a model are accumulated once; the weights need no text; some analyses run the model
again on a few sequences. An analysis that does not fit a model (one block, no gains) is left out
and named.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headless.analysis.ablation import outlier_ablation
from headless.analysis.activations import histograms
from headless.analysis.alignment import alignment_uniformity
from headless.analysis.anisotropy import layer_anisotropy
from headless.analysis.capture import Point
from headless.analysis.cone import cone
from headless.analysis.corpus import corpus
from headless.analysis.covariance_spectra import covariance_spectra
from headless.analysis.families import backbone_of, block_matrices
from headless.analysis.finding import Finding
from headless.analysis.frequency import frequency
from headless.analysis.gradients import gradients, token_loss
from headless.analysis.initial_token import initial_token_norms, sink_strength
from headless.analysis.latents import attention_and_mlp, latents
from headless.analysis.measure import measure, sample_tokens
from headless.analysis.norms import norms
from headless.analysis.outliers import outliers
from headless.analysis.permutation import block_permutation
from headless.analysis.positions import (
    position_means,
    position_table,
    positional_geometry,
    sequence_geometry,
)
from headless.analysis.repeated import repeated_token
from headless.analysis.weights import weight_findings
from headless.errors import HeadlessError
from headless.models.backbone import embedding_table

ALONE = 256  # tokens that are looked at one by one
FEW = 4  # sequences for what runs the model again
REPEATS = 3  # tokens that are repeated


@dataclass
class Subject:
    """What is looked at.

    Args:
        name: for titles.
        model: with a head; its backbone is of a family in `headless.analysis.families`.
        sequences_NT: token ids of a text, whole sequences; None: weights alone.
        counts_V: how often each token occurs in the training text, where it is known.
        tokens: of the training text, for its own spectrum; None: it is left out.
        initial: the backbone before training, where it is known.
        mask_token: of a masked model.
        bos: the token before a document.
    """

    name: str
    model: Any
    sequences_NT: Tensor | None = None
    counts_V: Tensor | None = None
    tokens: np.ndarray | None = None
    initial: nn.Module | None = None
    mask_token: int | None = None
    bos: int | None = None
    data: Path | None = None

    @property
    def backbone(self) -> nn.Module:
        """The part without the head."""
        return backbone_of(self.model)

    @property
    def head_VD(self) -> Tensor | None:  # noqa: N802 - the shape is part of the name
        """The head's matrix, where it has one that is not the embedding table."""
        linear = self.model.get_output_embeddings()
        weight = None if linear is None else linear.weight.detach()
        table = embedding_table(self.backbone)
        return None if weight is None or weight is table or torch.equal(weight, table) else weight


@dataclass
class Session:
    """A subject with what was measured of it, once and when it is first needed."""

    subject: Subject
    seed: int = 0
    report: Callable[[str, int, int], None] = lambda what, done, total: None
    _statistics: dict[Point, Any] | None = field(default=None, repr=False)

    @property
    def statistics(self) -> dict[Point, Any]:
        """Of every point, over all sequences."""
        if self._statistics is None:
            self._statistics = measure(
                self.subject.model,
                self.batches(),
                progress=lambda done, total: self.report("states", done, total),
                token_budget=int(self.sequences.numel()),
            )
        return self._statistics

    @property
    def sequences(self) -> Tensor:
        """The text."""
        assert self.subject.sequences_NT is not None
        return self.subject.sequences_NT

    def batches(self, size: int = 8) -> Iterator[Tensor]:
        """The text in batches, on the model's device."""
        device = next(self.subject.backbone.parameters()).device
        yield from (part.to(device) for part in self.sequences.split(size))

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
    def tables(self) -> dict[str, Tensor]:
        """Embeddings and, where it is another, the head."""
        table = {"embedding": embedding_table(self.subject.backbone).detach()}
        head = self.subject.head_VD
        return table if head is None else table | {"head": head}


Run = Callable[[Session], list[Finding]]


@dataclass(frozen=True)
class Analysis:
    """One row of the laboratory.

    Args:
        name: to select it by.
        words: what it shows.
        run: makes the findings.
        needs_text: whether it needs sequences; the others need weights alone.
    """

    name: str
    words: str
    run: Run
    needs_text: bool = True


def _weights(session: Session) -> list[Finding]:
    subject = session.subject
    return weight_findings(subject.backbone, head=subject.head_VD, initial=subject.initial)


def _cone(session: Session) -> list[Finding]:
    sets = {**session.tables, "hidden": session.last_states}
    return [cone(sets, count_V=session.subject.counts_V, seed=session.seed)]


def _alignment(session: Session) -> list[Finding]:
    statistics = session.statistics
    last = next(reversed(statistics.values()))
    head = "head" if "head" in session.tables else "embedding"
    return [
        alignment_uniformity(
            statistics,
            tokens_K=sample_tokens(last, session.batches()),
            next_K=sample_tokens(last, session.batches(), offset=1),
            tables=session.tables,
            head=head,
        )
    ]


def _norms(session: Session) -> list[Finding]:
    subject = session.subject
    rows = len(session.tables["embedding"])
    generator = torch.Generator().manual_seed(session.seed)
    some_N = torch.randperm(rows, generator=generator)[:ALONE]
    alone = initial_token_norms(subject.model, some_N)
    sink = sink_strength(subject.model, _few(session)) if subject.mask_token is None else None
    return [norms(session.statistics, alone=alone, sink=sink)]


def _ablation(session: Session) -> list[Finding]:
    few = [torch.cat(_few(session))]
    mask_token = session.subject.mask_token
    return [
        outlier_ablation(
            session.subject.model,
            few,
            session.statistics,
            mask_token=mask_token,
            seed=session.seed,
        )
    ]


def _frequency(session: Session) -> list[Finding]:
    counts_V = session.subject.counts_V
    if counts_V is None or not bool(counts_V.any()):
        raise HeadlessError("the training text's token counts are not known")
    rows = len(session.tables["embedding"])
    counts_V = F.pad(counts_V, (0, rows - len(counts_V)))  # a padded table has more rows than ids
    return [frequency(session.tables, counts_V, hidden_ND=session.last_states, seed=session.seed)]


def _positions(session: Session) -> list[Finding]:
    found = [sequence_geometry(session.statistics, seed=session.seed)]
    table = position_table(session.subject.backbone)
    if table is not None:
        path_TD, floor = table[: session.sequences.shape[1]], 0.0
    else:
        means_TD, floor = position_means(session.statistics, directions=True)
        path_TD = means_TD[1:]  # the first position is of another kind
    learned = table is not None
    return [positional_geometry(path_TD, learned=learned, floor=floor, seed=session.seed), *found]


def _corpus(session: Session) -> list[Finding]:
    tokens = session.subject.tokens
    if tokens is None:
        raise HeadlessError("no prepared text was given")
    rows = len(session.tables["embedding"])
    return [corpus(tokens, rows, seed=session.seed)]


def _covariance(session: Session) -> list[Finding]:
    matrices = block_matrices(session.subject.backbone)
    return [covariance_spectra(session.statistics, matrices=matrices)]


def _repeated(session: Session) -> list[Finding]:
    ids, counts = session.sequences.flatten().unique(return_counts=True)
    frequent = ids[counts.argsort(descending=True)][:REPEATS].tolist()
    length = int(session.sequences.shape[1])
    first = session.subject.bos
    return [
        repeated_token(
            session.subject.backbone, frequent, first=first, length=length, seed=session.seed
        )
    ]


def _few(session: Session) -> list[Tensor]:
    device = next(session.subject.backbone.parameters()).device
    return [row[None].to(device) for row in session.sequences[:FEW]]


def _gradients(session: Session) -> list[Finding]:
    subject = session.subject
    loss = token_loss(subject.model, subject.mask_token)
    return [gradients(subject.backbone, _few(session), loss)]


ANALYSES = (
    Analysis("weights", "spectra, noise, values, gains and sizes of every matrix", _weights, False),
    Analysis("corpus", "the text's own token covariance", _corpus),
    Analysis("frequency", "embeddings against token frequency", _frequency),
    Analysis("cone", "angles and anisotropy", _cone),
    Analysis(
        "anisotropy",
        "mean cosine by layer, in its variants",
        lambda s: [layer_anisotropy(s.statistics, tables=s.tables, seed=s.seed)],
    ),
    Analysis("alignment", "alignment and uniformity", _alignment),
    Analysis("histograms", "distributions of activations", lambda s: [histograms(s.statistics)]),
    Analysis("outliers", "outlier dimensions", lambda s: [outliers(s.statistics)]),
    Analysis("ablation", "the loss without the largest dimensions", _ablation),
    Analysis("covariance", "spectra of activations", _covariance),
    Analysis("norms", "norms by layer and position, and the first token", _norms),
    Analysis("latents", "principal components", lambda s: [latents(s.statistics, seed=s.seed)]),
    Analysis(
        "separation",
        "attention against MLP",
        lambda s: [attention_and_mlp(s.statistics, seed=s.seed)],
    ),
    Analysis("positions", "helices, and position against context", _positions),
    Analysis("repeated", "sequences of one token", _repeated),
    Analysis("gradients", "gradients of one example", _gradients),
    Analysis(
        "permutation",
        "blocks in another order",
        lambda s: [block_permutation(s.subject.model, _few(s), seed=s.seed)],
    ),
)
NAMES = tuple(analysis.name for analysis in ANALYSES)


def select(names: Sequence[str] | None) -> list[Analysis]:
    """The analyses of some names, in the order of the page; all of them for None.

    Raises:
        HeadlessError: an unknown name.
    """
    if names is None:
        return list(ANALYSES)
    if unknown := [name for name in names if name not in NAMES]:
        raise HeadlessError(f"there is no analysis {unknown[0]!r}; there are {', '.join(NAMES)}")
    return [analysis for analysis in ANALYSES if analysis.name in names]


def analyze(session: Session, analyses: Sequence[Analysis]) -> tuple[list[Finding], dict[str, str]]:
    """Run analyses.

    Returns:
        The findings, and for each analysis that could not be made the reason.
    """
    findings: list[Finding] = []
    left_out: dict[str, str] = {}
    for done, analysis in enumerate(analyses):
        session.report(analysis.name, done, len(analyses))
        if analysis.needs_text and session.subject.sequences_NT is None:
            left_out[analysis.name] = "no text was given"
            continue
        try:
            findings += analysis.run(session)
        except HeadlessError as error:
            left_out[analysis.name] = str(error)
    return findings, left_out
