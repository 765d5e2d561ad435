"""The geometry of a set of vectors. Pure: tensors in, numbers out.

Shapes: N vectors of width D, one a row.
"""

from headless.geometry.gaussianity import best_fit, fit_distributions, gaussian_distance, moments
from headless.geometry.growth import Growth, growth
from headless.geometry.helix import Helix, helix, random_walks
from headless.geometry.isotropy import (
    anisotropy,
    class_alignment,
    isotropic_uniformity,
    uniformity,
)
from headless.geometry.marchenko_pastur import MarchenkoPastur, bulk_std, compare_with_noise
from headless.geometry.power_law import log_fit, rank_law, tail_law
from headless.geometry.projection import (
    Projection,
    Separation,
    explained,
    principal_axes,
    separation,
    shares_of_independent,
    unit,
)
from headless.geometry.similarity import linear_cka, pwcca, spectrum_drift
from headless.geometry.spectrum import (
    effective_rank,
    participation_ratio,
    ranks_of,
    singular_spectrum,
    stable_rank,
)
