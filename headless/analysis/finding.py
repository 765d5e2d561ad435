"""What analyses that are not on `record.Finding` yet give back; the page takes both."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from headless.analysis.record import Animation, Kind, Picture
from headless.analysis.record import Answer as Claim

__all__ = ["Animation", "Claim", "Finding", "Kind", "Picture"]


@dataclass(frozen=True)
class Finding:
    """The result of one analysis: see `record.Finding`, whose properties are fields here."""

    name: str
    title: str
    about: str
    answer: str
    scalars: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    claims: tuple[Claim, ...] = ()
    animations: tuple[Animation, ...] = ()
