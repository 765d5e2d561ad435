"""What of each analysis is cheap enough to be followed while a model is trained.

The cheap forms take the weights as they are (no shuffled copies, no fits) and the moments and kept
states of the residual stream (`Session` with `preset="cheap"`), and run the model once. Their
scalars are some of those of the full forms: the same names, and the same functions behind them.
"""

import torch

from headless.analysis.alignment import alignments, next_token
from headless.analysis.covariance_spectra import spread_of
from headless.analysis.finding import Finding
from headless.analysis.session import Session
from headless.analysis.states import moments
from headless.analysis.states.measure import sample_tokens

ABOUT = (
    "The numbers of this analysis that are cheap enough to be followed while a model is trained. "
    "With --preset full it has the rest of them, what a null model would show, and its pictures."
)


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
