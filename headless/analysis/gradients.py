"""Gradients of single examples, before anything averages or clips them.

Shapes: B = 1 sequence, T positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from headless.analysis.finding import Claim, Finding, Picture
from headless.analysis.gradients_drawing import draw_histograms, draw_kurtosis
from headless.analysis.gradients_measure import (
    Entries,
    LossOf,
    Place,
    Z,
    backward,
    entries,
    noise_scale,
    token_loss,
)
from headless.analysis.sources import CONJECTURE, SMOLLM2
from headless.analysis.states.capture import middle_blocks
from headless.analysis.states.families import backbone_of
from headless.errors import HeadlessError

__all__ = ["entries", "gradients", "token_loss"]


def gradients(backbone: nn.Module, examples: Sequence[Tensor], loss_of: LossOf) -> Finding:
    """The distribution of the gradient of one example in each matrix, and how examples agree.

    Args:
        backbone: what the loss runs through; weights and their `.grad` stay as they are.
        examples: sequences [1, T], one a backward pass; the first one's gradient is described,
            all together give the mean's and the noise scale.
        loss_of: the loss of an example, not scaled, e.g. `token_loss(model)`.

    Raises:
        HeadlessError: no example, or a loss that is not finite.
    """
    if not examples:
        raise HeadlessError("gradients need an example: a sequence of tokens")
    inside = backbone_of(backbone)
    was_training = inside.training
    wanted = {p: p.requires_grad for p in inside.parameters()}
    inside.eval()
    try:
        for p in wanted:
            p.requires_grad_(True)
        single, mean, square = backward(inside, examples, loss_of)
    finally:
        for p, want in wanted.items():
            p.requires_grad_(want)
        inside.train(was_training)
    scalars: dict[str, float] = {}
    for (block, role), e in single.items():
        key = f"gradients/{role}/{block:02d}"
        scalars |= {
            f"{key}/mean_over_std": e.mean_over_std,
            f"{key}/std": e.std,
            f"{key}/kurtosis": e.kurtosis,
            f"{key}/scaled_kurtosis": e.scaled_kurtosis,
            f"{key}/largest": e.largest,
            f"{key}/tail": e.tail,
            f"{key}/piled": float(e.piled),
        }
        if len(examples) > 1:
            scalars[f"{key}/batch_kurtosis"] = mean[block, role].kurtosis
            scalars[f"{key}/noise_scale"] = noise_scale(*square[block, role], len(examples))
    kurtosis = np.array([e.kurtosis for e in single.values()])
    scaled = np.array([e.scaled_kurtosis for e in single.values()])
    off = max(abs(e.mean_over_std) for e in single.values())
    piled = float(np.median([e.piled for e in single.values()]))
    gauss = float(np.median([e.tail for e in single.values()]))
    scalars |= {
        "gradients/median_kurtosis": float(np.median(kurtosis)),
        "gradients/median_scaled_kurtosis": float(np.median(scaled)),
        "gradients/largest_mean_over_std": off,
        "gradients/median_tail": gauss,
        "gradients/median_piled": piled,
        "gradients/examples": float(len(examples)),
    }
    answer = (
        f"Entries have mean 0 (at most {off:.3f} standard deviations off). Their excess kurtosis "
        f"is {np.median(kurtosis):.1f} in the median matrix and {kurtosis.max():.0f} in the worst "
        f"(0 for a Gaussian), and entries beyond four standard deviations are {gauss:.0f} times "
        f"as frequent as a Gaussian's. With rows and columns scaled to one size "
        f"{np.median(scaled):.1f} is left."
    )
    if len(examples) > 1:
        averaged = np.median([e.kurtosis for e in mean.values()])
        scales = [noise_scale(*s, len(examples)) for s in square.values()]
        scalars["gradients/median_batch_kurtosis"] = float(averaged)
        scalars["gradients/median_noise_scale"] = float(np.median(scales))
        answer += (
            f" The mean of {len(examples)} examples has {averaged:.1f}; the noise scale is "
            f"{np.median(scales):.3g} examples."
        )
    claims = (
        Claim(
            CONJECTURE,
            "Gradients of single examples have mean 0",
            off <= 0.05,
            f"largest |mean| over standard deviation {off:.3f}, at most 0.050",
        ),
        Claim(
            CONJECTURE,
            "Gradients of single examples are highly Gaussian",
            float(np.median(kurtosis)) <= 1,
            f"median excess kurtosis {np.median(kurtosis):.1f}, at most 1.0",
        ),
        Claim(
            CONJECTURE,
            "Outliers pile up at one value, as if they had been clipped",
            piled >= 10,
            f"entries within 1 % of the largest {piled:.0f} in the median matrix, at least 10",
        ),
        _reading(single),
    )
    about = (
        "One example's gradient, not averaged over a batch and not clipped, says what a single "
        "sequence wants of each weight. Each histogram shows the entries of a matrix in standard "
        "deviations, beside the Gaussian with the same mean and deviation. Excess kurtosis is 0 "
        "for a Gaussian and large where few entries are huge. A gradient is a sum of products of "
        "an input and an error, so that one large input dimension makes a large column: the "
        "scaled kurtosis is what is left when rows and columns have one size. The noise scale "
        "says in how many examples the mean gradient's length equals the noise of one (McCandlish "
        "et al. 2018)."
    )
    roles = list(dict.fromkeys(role for _, role in single))
    depth = 1 + max(block for block, _ in single)
    grid = np.full((len(roles), depth), np.nan)
    for (block, role), e in single.items():
        grid[roles.index(role), block] = e.kurtosis
    arrays = {
        "kurtosis": grid,
        "edges": Z,
        **{f"{role}_{block:02d}": e.histogram for (block, role), e in single.items()},
    }
    pictures = (
        Picture(
            "gradients-histograms",
            "Entries of each kind of matrix in standard deviations, one line a block (dark: "
            "early), and the Gaussian (dashed); logarithmic, so that a Gaussian is a parabola.",
            lambda: draw_histograms(single, roles, depth),
        ),
        Picture(
            "gradients-kurtosis",
            "Excess kurtosis by matrix and block; 0 for a Gaussian.",
            lambda: draw_kurtosis(grid, roles),
            wide=False,
        ),
    )
    return Finding(
        "gradients", "Gradients of one example", about, answer, scalars, arrays, pictures, claims
    )


def _reading(single: Mapping[Place, Entries]) -> Claim:
    """Whether matrices that read have heavier tails than the one that writes, half-way."""
    blocks = middle_blocks({block for block, _ in single})

    def median(*roles: str) -> float:
        found = [e.kurtosis for (b, role), e in single.items() if b in blocks and role in roles]
        return float(np.median(found))

    reading, writing = median("q", "gate", "up"), median("o")
    return Claim(
        SMOLLM2,
        "Gradients of matrices that read the stream have heavier tails than those of attention's "
        "output",
        reading > writing,
        f"median excess kurtosis in the middle blocks {reading:.1f} of q, gate and up, above "
        f"{writing:.1f} of o",
        kind="own",
    )
