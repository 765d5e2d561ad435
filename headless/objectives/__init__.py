"""Training objectives: what a language model is asked to do with its hidden states. Pure torch."""

from headless.objectives.base import (
    LMHead,
    Negatives,
    Objective,
    ObjectiveOutput,
    UniqueTargets,
    log_unigram,
)
from headless.objectives.candidates import unique_targets
from headless.objectives.combined import Combined
from headless.objectives.contrastive import (
    ContrastiveWeightTying,
    contrastive_weight_tying_loss,
)
from headless.objectives.cross_entropy import CrossEntropy, cross_entropy_loss

__all__ = [
    "Combined",
    "ContrastiveWeightTying",
    "CrossEntropy",
    "LMHead",
    "Negatives",
    "Objective",
    "ObjectiveOutput",
    "UniqueTargets",
    "contrastive_weight_tying_loss",
    "cross_entropy_loss",
    "log_unigram",
    "unique_targets",
]
