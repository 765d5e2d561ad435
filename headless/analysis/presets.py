"""What of each analysis is cheap enough to be followed while a model is trained.

The cheap forms take the weights as they are (no shuffled copies, no fits) and the moments and kept
states of the residual stream (`Session` with `preset="cheap"`), and run the model once. Their
scalars are some of those of the full forms: the same names, and the same functions behind them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from headless.analysis.alignment import alignments, next_token
from headless.analysis.covariance_spectra import spread_of
from headless.analysis.finding import Finding
from headless.analysis.session import Session
from headless.analysis.states import moments
from headless.analysis.states.measure import sample_tokens
from headless.analysis.weights_gains import gains_finding, norms_of
from headless.analysis.weights_measure import role_arrays, role_means, spectra_of
from headless.analysis.weights_movement import movements_of, way_tables
from headless.analysis.weights_norms import size_tables, sizes_of
from headless.analysis.weights_shapes import EDGES, values_of
from headless.analysis.weights_tables import Table, table_scalars, tables_of
from headless.analysis.weights_values import moment_tables

ABOUT = (
    "The numbers of this analysis that are cheap enough to be followed while a model is trained. "
    "With --preset full it has the rest of them, what a null model would show, and its pictures."
)


def cheap_weights(session: Session) -> list[Finding]:
    """Spectra, moments, sizes, gains and distance from the beginning of every matrix."""
    subject = session.subject
    backbone, initial = subject.weights, subject.initial
    spectra = spectra_of(backbone, nulls=False)
    largest = {(s.block, s.role): float(s.values_R[0]) for s in spectra}
    values = values_of(backbone, fits=False)
    tables = tables_of(backbone, subject.head_VD, nulls=False)
    found = [
        Finding("table_spectra", "Embeddings and head", ABOUT, "", _joined(tables)),
        _by_role(
            "weight_values",
            "Values of the weights",
            moment_tables(values),
            {"edges": EDGES} | {f"density/{v.role}/{v.block:02d}": v.density_K for v in values},
        ),
        _by_role(
            "weight_norms",
            "Reading and writing weights by depth",
            size_tables(sizes_of(backbone, largest)),
        ),
    ]
    if initial is not None:
        way = way_tables(movements_of(backbone, initial, spectra=False))
        found.append(_by_role("weight_movement", "Movement since the beginning", way))
    gains = gains_finding(norms_of(backbone))
    return found if gains is None else [*found, gains]


def _joined(tables: Sequence[Table]) -> dict[str, float]:
    return {name: value for table in tables for name, value in table_scalars(table).items()}


def _by_role(
    name: str,
    title: str,
    measures: Mapping[str, Mapping[str, np.ndarray]],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Finding:
    """Means over the blocks as scalars, every block in the arrays."""
    arrays = role_arrays(measures) | dict(arrays or {})
    return Finding(name, title, ABOUT, "", role_means(name, measures), arrays)


def cheap_alignment(session: Session) -> list[Finding]:
    """States of one token, and a state with the head's row of what follows."""
    statistics = session.statistics
    last = next(reversed(statistics.values()))
    tokens_K = sample_tokens(last, session.batches())
    tables = session.tables
    scalars = alignments(statistics, tokens_K)
    if session.subject.has_head:
        next_K = sample_tokens(last, session.batches(), offset=1)
        scalars |= next_token(last.sample_KD, next_K, tables.get("head", tables["embedding"]))
    return [Finding("alignment_uniformity", "Alignment", ABOUT, "", scalars)]


def cheap_covariance(session: Session) -> list[Finding]:
    """Over how many directions the stream is spread."""
    scalars = {
        f"covariance_spectra/{point.name}/{name}": value
        for point, s in session.statistics.items()
        if s.outer_DD is not None
        for name, value in spread_of(torch.from_numpy(moments.eigenvalues(s).copy())).items()
    }
    return [Finding("covariance_spectra", "Spectra of activations", ABOUT, "", scalars)]
