"""The matrices of a model's weights, decomposed once for all analyses of them."""

from headless.analysis.session import Session
from headless.analysis.weights_measure import Spectrum, spectra_of


def block_spectra(lab: Session, *, nulls: bool) -> list[Spectrum]:
    """Of every matrix of every block; with nulls also shuffled, and as it began where known."""
    subject = lab.subject
    initial = subject.initial if nulls else None
    return lab.once(
        f"block spectra {nulls}", lambda: spectra_of(subject.weights, initial, nulls=nulls)
    )
