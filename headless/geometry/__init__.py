"""The geometry of a set of vectors. Pure: tensors in, numbers out.

Shapes: N vectors of width D, one a row.
"""

from headless.geometry.anisotropy import anisotropy
from headless.geometry.effective_rank import effective_rank, participation_ratio, stable_rank
from headless.geometry.spectrum import singular_spectrum

__all__ = [
    "anisotropy",
    "effective_rank",
    "participation_ratio",
    "singular_spectrum",
    "stable_rank",
]
