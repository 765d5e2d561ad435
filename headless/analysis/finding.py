"""What an analysis gives back: numbers, the arrays behind its pictures, pictures, and its answer.

An analysis is a pure function of what was measured (weights, `Statistics`, a corpus) and returns a
`Finding`; the laboratory runs those that were asked for, and the page, `analysis.json`, figures for
papers and W&B are all made from findings alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["literature", "own"]


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when somebody looks.

    Args:
        name: of its file, without a suffix.
        caption: what is drawn, with the null model that stands beside it.
        draw: makes a matplotlib figure in the style of `headless.pages.figures`.
        wide: needs the page's whole width.
    """

    name: str
    caption: str
    draw: Callable[[], Any]
    wide: bool = True


@dataclass(frozen=True)
class Animation:
    """A moving picture: frames that are drawn one after the other when somebody looks.

    Args:
        name: of its file, without a suffix.
        caption: what is drawn, and what the axes are fixed from.
        frames: what each one shows, e.g. "block 3" or "step 400".
        draw: makes the matplotlib figure of a frame by its index; all of one size, with axes whose
            limits do not depend on the frame.
        seconds: that a frame stands.
        wide: needs the page's whole width.
    """

    name: str
    caption: str
    frames: tuple[str, ...]
    draw: Callable[[int], Any]
    seconds: float = 0.6
    wide: bool = True


@dataclass(frozen=True)
class Claim:
    """What a source says, and what this model does.

    Args:
        source: who says it; of our own, the model or text that it was measured on.
        text: what.
        agrees: whether this model does so by the stated criterion; None: it cannot be asked.
        criterion: in numbers, e.g. "largest Jaccard of adjacent blocks 0.92, at least 0.6".
        kind: "own" is what we found in one model or text and ask of others: it is shown and never
            counted, for on its source it holds by construction.
        of_text: it is said of texts; no model agrees or disagrees.
        contested: what sources contradict each other on: a model always agrees with one of them,
            so that neither is counted.
        twins: what `agrees` is for the same shape with random weights, each time other ones;
            empty: they were not asked.
        twin_criterion: the criterion with the numbers of the first of them.
    """

    source: str
    text: str
    agrees: bool | None
    criterion: str
    kind: Kind = "literature"
    of_text: bool = False
    contested: str = ""
    twins: tuple[bool | None, ...] = ()
    twin_criterion: str = ""

    @property
    def counts(self) -> bool:
        """Whether agreement with it says something of a model."""
        return self.kind == "literature" and not self.of_text and not self.contested

    @property
    def twin(self) -> bool | None:
        """Whether it holds in one of the random twins; None: it cannot be asked of any."""
        known = [verdict for verdict in self.twins if verdict is not None]
        return any(known) if known else None


@dataclass(frozen=True)
class Finding:
    """The result of one analysis on one model.

    Args:
        name: its key, e.g. "anisotropy"; the scalars' names begin with it.
        title: for a heading.
        about: what is measured and how, in a paragraph that a reader new to it understands.
        answer: what this model does, in a sentence or two with its numbers.
        scalars: the numbers, e.g. {"anisotropy/post/03": 0.41, "anisotropy/post/03/centred": 0.0}.
        arrays: what the pictures are drawn from, by name.
        pictures: in the order in which they are looked at.
        claims: what the sources report, and whether this model agrees.
        animations: shown after the first picture.
    """

    name: str
    title: str
    about: str
    answer: str
    scalars: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    claims: tuple[Claim, ...] = ()
    animations: tuple[Animation, ...] = ()
